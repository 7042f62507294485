"""A stage that takes too long or stands still ends with one line, by the signal that Ctrl-C sends."""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from dags.interrupts import keyboard_interrupts
from pipelines.errors import StageFailed
from pipelines.execution.watchdog import WatchedProgress, watched

HANG = 60.0


@pytest.fixture
def progress():
    return WatchedProgress(quiet=True)


@contextmanager
def stage(progress, *, most=None, still=None):
    """As an asset runs it."""
    with keyboard_interrupts(), watched("train", progress, most=most, still=still):
        yield


def test_a_stage_without_progress_is_ended_with_one_line(progress):
    started = time.monotonic()
    line = r"^train made no progress for 0.2 s \(operations.stall_seconds\)"
    with pytest.raises(StageFailed, match=line), stage(progress, still=0.2):
        time.sleep(HANG)
    assert time.monotonic() - started < HANG / 2


def test_a_stage_over_its_limit_is_ended_although_it_goes_on(progress):
    def work():
        with stage(progress, most=1.0, still=30.0), progress.task("train", 1000, "images") as advance:
            while True:
                advance()
                time.sleep(0.05)

    with pytest.raises(StageFailed, match=r"^train took longer than its limit, .*stage_seconds.train=1;"):
        work()


def test_progress_keeps_a_stage_alive(progress):
    with stage(progress, still=2.0), progress.task("train", 10, "images") as advance:
        for _ in range(10):
            advance()
            time.sleep(0.4)


def test_ctrl_c_stays_ctrl_c(progress):
    with pytest.raises(KeyboardInterrupt), stage(progress, most=30.0, still=30.0):
        signal.raise_signal(signal.SIGINT)


def test_what_does_not_end_on_an_interrupt_is_killed():
    code = """if True:
        import signal, time
        from pipelines.execution import watchdog
        watchdog.GRACE_SECONDS = 0.2
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with watchdog.watched("train", watchdog.WatchedProgress(), most=None, still=0.2):
            time.sleep(60)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("straightshot: train made no progress for 0.2 s") and line.endswith("killed")
