"""Progress: one display for tasks side by side on a terminal, plain lines in a log."""

import io
import re
import time

from pipelines.execution.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_two_tasks_share_a_terminal_and_the_next_one_has_it_again(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    progress = Progress(stream)
    with progress.tasks([("judge", 10, "images"), ("captioner", 20, "images")]) as (first, second):
        first(10, "loss 0.5")
        second(5)
        second(-5)  # a worker began again
        second(15, "loss 0.25")
        time.sleep(0.3)  # it is refreshed ten times a second
        displayed = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())  # without colours
    assert all(
        text in displayed for text in ("judge", "10/10 images", "captioner", "15/20 images", "loss 0.25")
    )
    stream.truncate(0)
    with progress.task("train", 3, "images") as advance:
        advance(3)
        time.sleep(0.3)
    assert "train" in stream.getvalue() and "judge" not in stream.getvalue()


def test_nothing_is_shown_when_quiet():
    with Progress(io.StringIO(), quiet=True).tasks([("judge", 10, "images")]) as (advance,):
        advance(3)
