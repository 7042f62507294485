"""A run whose process was killed is closed, and holds up nobody: real processes, the real queue."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from dags.instance import write_settings
from dags.run_processes import PID, close_dead_runs
from dags.watch import silent_sensor
from pipelines.config import load_config
from pipelines.deployment import Deployment

START_SECONDS = 60.0  # what the issue allows a run of the page, after a kill
PATIENCE = 180.0  # seconds for whatever has no limit of its own, on a loaded machine
SMALL = ["--preset", "micro", "--corpus", "toy:20", "--set", "toy.labelled=5"]


def wait_for(what: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        time.sleep(0.3)


def statuses(instance: dg.DagsterInstance) -> list[str]:
    """Of the runs, newest first."""
    return [run.status.value for run in instance.get_runs()]


def end(process: subprocess.Popen, *others: int) -> None:
    """Kill a process that this test started, with all that it started."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    process.wait()
    for pid in [*(child.pid for child in family), *others]:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def killed_home(tmp_path: Path) -> Iterator[Path]:
    """A HOME whose command was killed in the middle of a run."""
    home = tmp_path / "home"
    command = [sys.executable, "-m", "dags.cli.app", "run", *SMALL, "--home", str(home)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: (home / "annotators").is_dir() or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "log").read_text()
    finally:
        end(process)
    yield home


def test_after_a_kill_the_next_command_and_the_daemon_close_the_run_and_start_theirs(
    killed_home, tmp_path, monkeypatch
):
    folder = write_settings(killed_home)
    copy = shutil.copytree(folder, tmp_path / "copy")
    with dg.DagsterInstance.from_config(str(copy)) as instance:  # as the next command closes it
        (killed,) = instance.get_runs()
        assert killed.status is dg.DagsterRunStatus.STARTED
        assert close_dead_runs(instance) == [killed.run_id]
        assert statuses(instance) == ["FAILURE"]
        assert close_dead_runs(instance) == []

    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("STRAIGHTSHOT_HOME", str(killed_home))
    dagster = [sys.executable, "-m", "dagster"]
    where = ["-m", "dags.definitions"]
    log = (tmp_path / "daemon.log").open("wb")
    daemon = subprocess.Popen(
        [sys.executable, "-m", "dagster._daemon", "run", *where],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    started: list[int] = []
    long_ago = Deployment(load_config("micro"), "me", "2026-01-01T00:00:00+00:00", "digest")
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        try:
            wait_for(lambda: instance.get_daemon_statuses() and daemon.poll() is None)
            assert silent_sensor(instance, long_ago, time.time())
            tags = '{"dagster/partition": "default"}'
            launch = [*dagster, "job", "launch", *where, "-j", "data", "--tags", tags]
            subprocess.run(launch, check=True, capture_output=True)
            wait_for(lambda: statuses(instance) == ["STARTED", "FAILURE"], START_SECONDS)
            wait_for(lambda: PID in instance.get_runs()[0].tags)
            started.append(int(instance.get_runs()[0].tags[PID]))
            assert psutil.pid_exists(started[0]) and started[0] != os.getpid()
            (failure,) = instance.all_logs(killed.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
            assert "is gone: it was killed" in failure.message
            wait_for(lambda: silent_sensor(instance, long_ago, time.time()) is None)
        finally:
            end(daemon, *started)
            log.close()
