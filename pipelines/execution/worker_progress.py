"""The progress of workers whose tasks are long: they count, the driver shows the sum."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.execution.worker_events import EventReader, EventWriter

SECONDS = 1.0  # between two reports, and between two looks at them


class ProgressWriter:
    """A worker's end: how many units are done, and how many of them were kept."""

    def __init__(self, folder: Path, name: str) -> None:
        self.writer, self.done, self.kept, self.at = EventWriter(folder, name), 0, 0, time.monotonic()

    def count(self, done: int, kept: int) -> None:
        self.done, self.kept = self.done + done, self.kept + kept
        if time.monotonic() - self.at >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Report what is not reported yet."""
        self.writer.write(done=self.done, kept=self.kept)
        self.done = self.kept = 0
        self.at = time.monotonic()


@contextmanager
def followed(folder: Path, advance: Callable[[int, str], None], kept: str) -> Iterator[None]:
    """Within it, what workers report in the folder from now on is shown. kept: what is kept, in words."""
    reader, ended = EventReader(folder), threading.Event()
    reader.poll()  # of an earlier run

    def follow() -> None:
        total, last = 0, False
        while not last:
            last = ended.wait(SECONDS)
            for _, event in reader.poll():
                total += event["kept"]
                advance(event["done"], f"{total:,} {kept}")

    thread = threading.Thread(target=follow, name="workers-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
