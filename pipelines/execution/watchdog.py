"""The end of a stage that takes too long, or whose progress stands still: one line instead of a hang.

A stage reports its progress in any case (progress.py), so a watchdog needs nothing of it: a thread looks at
when the last report came. It interrupts the main thread as Ctrl-C does, which lets the stage clear up; what
it had finished is kept. A process that does not even end on that is killed, with all that it started.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from pipelines.errors import StageFailed
from pipelines.execution.progress import Progress

LOOK_SECONDS = 1.0
GRACE_SECONDS = 60.0  # from the interrupt to the kill


class WatchedProgress(Progress):
    """Shows progress, and knows when the last of it came (`time.monotonic`)."""

    last: float = 0.0

    def say(self, text: str) -> None:
        self.last = time.monotonic()
        super().say(text)

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
        self.last = time.monotonic()
        with super().task(name, total, unit) as advance:

            def noted(n: int = 1, note: str = "") -> None:
                self.last = time.monotonic()
                advance(n, note)

            yield noted
        self.last = time.monotonic()


@contextmanager
def watched(
    stage: str, progress: WatchedProgress, *, most: float | None, still: float | None
) -> Iterator[None]:
    """Within it, raise StageFailed once the stage took `most` seconds or reported nothing for `still`.

    None: no limit. It must be entered where Ctrl-C raises KeyboardInterrupt; outside of the main thread,
    which no signal reaches, nothing is watched.
    """
    if threading.current_thread() is not threading.main_thread() or (most is None and still is None):
        yield
        return
    progress.last = started = time.monotonic()
    done, lines = threading.Event(), list[str]()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            now = time.monotonic()
            if most is not None and now - started > most:
                lines.append(f"{stage} took longer than its limit, operations.stage_seconds.{stage}={most:g}")
            elif still is not None and now - progress.last > still:
                lines.append(f"{stage} made no progress for {still:g} s (operations.stall_seconds)")
            else:
                continue
            os.kill(os.getpid(), signal.SIGINT)
            if not done.wait(GRACE_SECONDS):
                _kill(f"straightshot: {lines[0]} and did not end when it was interrupted: killed")
            return

    thread = threading.Thread(target=watch, name=f"watchdog-{stage}", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if lines:
            raise StageFailed(f"{lines[0]}; it was ended, and the same command goes on from there") from None
        raise
    finally:
        done.set()
        thread.join()


def _kill(line: str) -> None:
    """End this process and all that it started, at once."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os.kill(os.getpid(), signal.SIGKILL)
