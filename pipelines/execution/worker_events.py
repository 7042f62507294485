"""What workers report while they work: each writes lines to a file of its own, which the driver follows.

The files lie under the output, where every node sees them as it sees HOME, so there is no process to start
for them, and the last events of a killed worker are kept.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.errors import raise_serialized, serialize_error

Event = dict[str, Any]


class EventWriter:
    """A worker's end: `write` appends to its own file in the channel's folder."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"{name}.jsonl").open("a", encoding="utf-8")

    def write(self, **event: Any) -> None:
        """Write one event, at once."""
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()

    @contextmanager
    def reporting(self, *errors: type[Exception]) -> Iterator[None]:
        """Write an error of these types as an event, then raise it on: through Ray only its text comes."""
        try:
            yield
        except errors as error:
            self.write(**serialize_error(error))
            raise


class EventReader:
    """The driver's end: the events of all workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, int] = {}

    def poll(self) -> list[tuple[str, Event]]:
        """New events with the name of their worker, each worker's in its order. Raises a worker's error."""
        events: list[tuple[str, Event]] = []
        for path in sorted(self.folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")  # the last line may still be written
            self._read[path] = self._read.get(path, 0) + len(whole) + len(newline)
            events += [(path.stem, json.loads(line)) for line in whole.splitlines()]
        for _, event in events:
            raise_serialized(event)
        return events
