"""The servers of `straightshot ui`: each a process group of its own, with a log, ended with its children."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import StraightshotError

LOOPBACK = "127.0.0.1"
START_SECONDS = 180.0  # a cold start of all takes about 20 s on two cores with nothing else to do


@dataclass(frozen=True)
class Server:
    """One process. health: an address that answers 200 once it is up, or the path of its socket, or neither
    where nothing waits for it.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    health: str | Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # of the request to `health`


class Keeper:
    """A process that ends the servers if this one is killed (keeper.py)."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "dags.pages.keeper"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, text=True)

    def keep(self, process: "subprocess.Popen[bytes]") -> None:
        """That it ends this one, too."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{process.pid}\n")
        self._process.stdin.flush()

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, *_: object) -> None:
        """After the servers have ended."""
        self._process.communicate()


@contextmanager
def running(
    server: Server, environment: Mapping[str, str], keeper: Keeper
) -> Iterator["subprocess.Popen[bytes]"]:
    """The server in a process group of its own, ended with all its children on leaving."""
    server.log.parent.mkdir(parents=True, exist_ok=True)
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            server.command,
            env=dict(environment),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=server.log.parent,  # what a server drops in its working folder lands with the logs
        )
        try:
            keeper.keep(process)
            yield process
        finally:
            _end(process)


def wait_until_up(server: Server, process: "subprocess.Popen[bytes]") -> None:
    """Return once it answers. Raises StraightshotError if it ends, or is not up after START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while not _is_up(server):
        if process.poll() is not None:
            raise StraightshotError(f"{server.name} ended as it started: {_end_of(server.log)}")
        if time.monotonic() > deadline:
            raise StraightshotError(f"{server.name} was not up after {START_SECONDS:.0f} s; see {server.log}")
        time.sleep(0.3)


def watch(started: Sequence[tuple[Server, "subprocess.Popen[bytes]"]]) -> None:
    """Sleep until one of them ends by itself, which raises StraightshotError."""
    while True:
        for server, process in started:
            if process.poll() is not None:
                raise StraightshotError(f"{server.name} ended: {_end_of(server.log)}")
        time.sleep(1)


def free_port() -> int:
    """A port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _is_up(server: Server) -> bool:
    if isinstance(server.health, Path):
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(server.health)) == 0
    if server.health is None:
        return True
    request = urllib.request.Request(server.health, headers=dict(server.headers))
    try:
        with urllib.request.urlopen(request, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    import psutil

    from dags.pages.keeper import end_tree

    with suppress(psutil.NoSuchProcess):
        end_tree(psutil.Process(process.pid))
    process.wait()


def _end_of(log: Path) -> str:
    """The last line of a log, and where the rest is."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1].strip() if lines else 'its log is empty'}; see {log}"
