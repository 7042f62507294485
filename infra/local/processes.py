"""The processes of a local cluster: started in sessions of their own, recorded by pid and birth, and ended.

A pid alone names another process after a reboot, so a record counts only with the time of birth that it had.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

START_SECONDS = 180.0  # what a loaded machine takes for the slowest of them, with room
STOP_SECONDS = 10.0


class NotStarted(Exception):
    """A service that did not start; the message is one line for the user."""


@dataclass(frozen=True)
class Service:
    """One process. up: whether it answers. stop: the signal that ends it in order."""

    name: str
    command: tuple[str, ...]
    up: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    stop: int = signal.SIGTERM


@dataclass(frozen=True)
class Started:
    """A process that was started: its birth in seconds since the epoch, its signal of ending."""

    name: str
    pid: int
    birth: float
    stop: int

    def process(self) -> psutil.Process | None:
        """The process, if it still lives."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.birth) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


class Record:
    """The started processes, in the order of their start, as a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Started]:
        if not self.path.exists():
            return []
        return [Started(**entry) for entry in json.loads(self.path.read_text())]

    def living(self) -> list[Started]:
        return [started for started in self.read() if started.process() is not None]

    def add(self, started: Started) -> None:
        entries = [asdict(entry) for entry in [*self.read(), started]]
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(entries, indent=1))
        new.replace(self.path)


def start_all(services: Sequence[Service], logs: Path, record: Record) -> None:
    """Start them side by side, record them, and wait until each answers. Raises NotStarted."""
    running = [(service, _spawn(service, logs, record)) for service in services]
    deadline = time.monotonic() + START_SECONDS
    for service, process in running:
        log = _log(logs, service)
        while not service.up():
            if time.monotonic() > deadline:
                raise NotStarted(f"{service.name} did not answer within {START_SECONDS:.0f} s; see {log}")
            _check_alive(service, process, log)
            time.sleep(0.2)
        _check_alive(service, process, log)


def _spawn(service: Service, logs: Path, record: Record) -> subprocess.Popen[bytes]:
    with _log(logs, service).open("ab") as output:
        process = subprocess.Popen(
            service.command,
            env={**os.environ, **service.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=logs if service.user is None else "/",  # another user cannot enter our folders
            user=service.user,
            group=service.user,
            extra_groups=None if service.user is None else [],
        )
    birth = psutil.Process(process.pid).create_time()  # it is our child: dead, it is still there
    record.add(Started(service.name, process.pid, birth, service.stop))
    return process


def _check_alive(service: Service, process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        lines = log.read_text(errors="replace").strip().splitlines()
        last = lines[-1].strip() if lines else "its log is empty"
        raise NotStarted(f"{service.name} ended as it started: {last}; see {log}")


def _log(logs: Path, service: Service) -> Path:
    return logs / f"{service.name}.log"


def stop_all(record: Record) -> list[str]:
    """End the recorded processes with all their children: the first one, which the others use, after them.

    Returns the names of those that ran.
    """
    first, others = record.read()[:1], record.read()[1:]
    ended = [*_stop(others), *_stop(first)]
    record.path.unlink(missing_ok=True)
    return ended


def _stop(group: Sequence[Started]) -> list[str]:
    living = [(started, process) for started in group if (process := started.process()) is not None]
    family = [member for _, process in living for member in (*process.children(recursive=True), process)]
    for started, process in living:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(started.stop)
    _, alive = psutil.wait_procs(family, STOP_SECONDS)
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(alive, STOP_SECONDS)
    return [started.name for started, _ in living]
