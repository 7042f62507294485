"""The end of work that would hang: one line for a stage that takes too long, or whose progress stands still.

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
from contextlib import contextmanager, suppress

import psutil

from pipelines.errors import StageFailed
from pipelines.execution.progress import Progress

LOOK_SECONDS = 1.0
GRACE_SECONDS = 60.0  # from the interrupt to the kill

exit_status = StageFailed.exit_status  # of a process that is ended at once; a command sets that of its error


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

    None: no limit. As for `ended_when`, no other thread than the main one is watched.
    """
    if most is None and still is None:
        yield
        return
    progress.last = started = time.monotonic()

    def over_its_limits() -> str | None:
        now = time.monotonic()
        if most is not None and now - started > most:
            return f"{stage} took longer than its limit, operations.stage_seconds.{stage}={most:g}"
        if still is not None and now - progress.last > still:
            return f"{stage} made no progress for {still:g} s (operations.stall_seconds)"
        return None

    with ended_when(over_its_limits, after="it was ended, and the same command goes on from there"):
        yield


@contextmanager
def ended_when(
    why: Callable[[], str | None],
    *,
    after: str,
    grace: float | None = None,
    error: type[StageFailed] = StageFailed,
) -> Iterator[None]:
    """Within it, raise `error` once `why()`, asked every LOOK_SECONDS, says why the work must end.

    after: what the error says beside that. grace: seconds from the interrupt to the end of this process, by
    default GRACE_SECONDS. It must be entered where Ctrl-C raises KeyboardInterrupt; outside of the main
    thread, which no signal reaches, nothing is watched.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    done, lines = threading.Event(), list[str]()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            if (line := why()) is None or done.is_set():
                continue
            lines.append(line)
            os.kill(os.getpid(), signal.SIGINT)
            if not done.wait(GRACE_SECONDS if grace is None else grace):
                sys.stderr.write(
                    f"straightshot: {line}; this process did not end when it was interrupted: killed\n"
                )
                end_at_once()
            return

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if lines:
            raise error(f"{lines[0]}; {after}") from None
        raise
    finally:
        done.set()
        thread.join()


def end_at_once() -> None:
    """End this process and all that it started, with `exit_status`.

    Nothing that is to run at its end does, but for what it has printed, which is written out.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a closed pipe or file
            stream.flush()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(exit_status)
