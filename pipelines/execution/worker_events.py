"""What workers say while they work: lines of a file each, which the driver follows.

The files lie under the output, where every node sees them as it sees HOME, so there is no process to start
for them, and what a killed worker said last is kept.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.errors import raise_serialized, serialize_error
from pipelines.execution.engine import RAISED

Event = dict[str, Any]


class EventWriter:
    """A worker's end: `write` appends to its own file in the channel's folder."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"{name}.jsonl").open("a", encoding="utf-8")

    def write(self, **event: Any) -> None:
        """Tell the driver, now."""
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()

    @contextmanager
    def reporting_errors(self) -> Iterator[None]:
        """Tell what is meant for the user before it is raised on: through Ray only its text would come."""
        try:
            yield
        except RAISED as error:
            self.write(**serialize_error(error))
            raise


class EventReader:
    """The driver's end: what all workers said since it last asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, int] = {}

    def poll(self) -> list[tuple[str, Event]]:
        """(who, what), each worker's in its order. Raises what a worker told as its error."""
        found = []
        for path in sorted(self.folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")  # the last line may still be written
            self._read[path] = self._read.get(path, 0) + len(whole) + len(newline)
            found += [(path.stem, json.loads(line)) for line in whole.splitlines()]
        for _, event in found:
            raise_serialized(event)
        return found
