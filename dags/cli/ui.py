"""Dagster's page (with its daemon) and MLflow's, on loopback, until Ctrl-C.

Both look at the same HOME that the command writes to. Nothing is opened to the network: whoever reaches
these pages can run code.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dags.instance import write_settings
from pipelines.errors import StraightshotError
from pipelines.registry.mlflow_store import ARTIFACTS, Tracker
from pipelines.store.home import HOME_VARIABLE

LOOPBACK = "127.0.0.1"
START_SECONDS = 180.0  # a cold start of both takes about 15 s on two cores with nothing else to do
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Page:
    """One server. health: the path that answers 200 once it is up."""

    name: str
    url: str
    health: str
    command: tuple[str, ...]
    log: Path


def serve(home: Path, dagster_port: int, mlflow_port: int, show: Callable[[str], None]) -> None:
    """Start both, show their addresses, end both on Ctrl-C. A port of 0 is the first free one.

    Raises StraightshotError if one does not start, or ends by itself.
    """
    pages = [_dagster_page(home, dagster_port or _free_port())]
    tracker = Tracker(home)
    if tracker.own:
        _ = tracker.experiment  # makes the database, one process at a time
        pages.append(_mlflow_page(home, tracker.uri, mlflow_port or _free_port()))
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(write_settings(home)),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its workers are for GenAI jobs, and eight processes
        HOME_VARIABLE: str(home),
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # ends the servers, too
    with ExitStack() as stack:
        running = [(page, stack.enter_context(_running(page, environment))) for page in pages]
        show("starting …")
        for page, process in running:
            _wait_until_up(page, process)
        for page, _ in running:
            show(f"{page.name:<8} {page.url}")
        if not tracker.own:
            show(f"{'MLflow':<8} {tracker.uri}")
        show("Ctrl-C ends them.")
        _watch(running)


def _dagster_page(home: Path, port: int) -> Page:
    command = (
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-m",
        "dags.definitions",
        "-h",
        LOOPBACK,
        "-p",
        str(port),
    )
    return Page("Dagster", f"http://{LOOPBACK}:{port}", "/server_info", command, _log(home, "dagster"))


def _mlflow_page(home: Path, uri: str, port: int) -> Page:
    artifacts = (home.resolve() / ARTIFACTS).as_uri()
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port)),
        *("--backend-store-uri", uri, "--registry-store-uri", uri, "--workers", "1"),
        *("--default-artifact-root", artifacts, "--artifacts-destination", artifacts),
    )
    return Page("MLflow", f"http://{LOOPBACK}:{port}", "/health", command, _log(home, "mlflow"))


@contextmanager
def _running(page: Page, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The server as a process group of its own, ended with all its children on leaving."""
    with page.log.open("wb") as log:
        process = subprocess.Popen(
            page.command,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=page.log.parent,  # what a server drops in its working folder lands with the logs
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate the server, then kill it and all its children that are left."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        process.kill()
        process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _wait_until_up(page: Page, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StraightshotError(
                f"{page.name} ended as it started: {_last_line(page.log)}; see {page.log}"
            )
        try:
            with urllib.request.urlopen(page.url + page.health, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise StraightshotError(f"{page.name} was not up after {START_SECONDS:.0f} s; see {page.log}")


def _watch(running: list[tuple[Page, subprocess.Popen[bytes]]]) -> None:
    """Sleep until one of them ends by itself."""
    while True:
        for page, process in running:
            if process.poll() is not None:
                raise StraightshotError(f"{page.name} ended: {_last_line(page.log)}; see {page.log}")
        time.sleep(1)


def _log(home: Path, name: str) -> Path:
    path = home / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "its log is empty"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
