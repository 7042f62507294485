"""Progress of long work: a bar with rate and ETA on a terminal, plain lines in a log.

One `Progress` per command; a stage uses `with progress.task("filter", total, "records") as advance`.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

LINE_SECONDS = 10.0  # between two lines of one task in a log


class Progress:
    """Shows what a stage is doing. `quiet` shows nothing (tests, library use)."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self._live: Any = None  # rich's display, while one is open

    def say(self, text: str) -> None:
        """One plain line."""
        if not self.quiet:
            print(text, file=self.stream, flush=True)

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
        """Yield `advance(n=1, note="")`: n more units are done; `note` is shown beside (a loss, say)."""
        if self.quiet:
            yield lambda n=1, note="": None
        elif self.stream.isatty():
            with self._bar(name, total, unit) as advance:
                yield advance
        else:
            yield self._lines(name, total, unit)

    @contextmanager
    def tasks(self, tasks: Sequence[tuple[str, int, str]]) -> Iterator[list[Callable[..., None]]]:
        """Several tasks at the same time, (name, total, unit) each: a list of their `advance`."""
        with ExitStack() as stack:
            yield [stack.enter_context(self.task(*task)) for task in tasks]

    @contextmanager
    def _bar(self, name: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with ExitStack() as stack:
            bar = self._live
            if bar is None:  # tasks within others are lines of the same display: a terminal bears only one
                bar = stack.enter_context(Bar(*columns, console=Console(file=self.stream), transient=True))
                self._live = bar
                stack.callback(setattr, self, "_live", None)
            task = bar.add_task(name, total=total, unit=unit, note="", rate="")
            started = time.monotonic()
            done = 0

            def advance(n: int = 1, note: str = "") -> None:
                nonlocal done
                done += n
                rate = done / max(time.monotonic() - started, 1e-9)
                bar.update(task, advance=n, note=note, rate=f"{rate:,.0f}/s")

            yield advance
            bar.remove_task(task)

    def _lines(self, name: str, total: int, unit: str) -> Callable[..., None]:
        started = last = time.monotonic()
        done = 0

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal done, last
            done += n
            now = time.monotonic()
            if now - last < LINE_SECONDS:
                return
            last = now
            rate = done / (now - started)
            eta = f"{(total - done) / rate:,.0f} s left" if rate else "no estimate yet"
            self.say(f"{name}: {done:,}/{total:,} {unit}, {rate:,.0f}/s, {eta} {note}".rstrip())

        return advance
