"""What a HOME must be able to do: the interface behind which a local folder or an object store can stand.

Keys are relative paths with `/`. Locks, readers' marks and receipts need no more than this, and an object
store gives it by conditional put (If-None-Match, If-Match). A tag names one content of one key; what it is
made of is the store's own affair (an ETag, a hash).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.durable import Written, nothing


@dataclass(frozen=True)
class Stored:
    """What lies under a key: the content, its tag, and when it was written, in seconds since the epoch by
    the store's clock."""

    content: bytes
    tag: str
    modified: float


class Store(Protocol):
    """A place for whole objects. Readers see an object as it was before a write or after it, never between.

    Every method may raise OSError; StoreBusy when a conditional write could not be tried in time.
    """

    def read(self, key: str) -> Stored | None:
        """What lies under the key; None when there is nothing."""
        ...

    def write(
        self, key: str, fill: Callable[[Path], object], *, before_commit: Callable[[], None] = nothing
    ) -> Written:
        """Have `fill` write a local file and put it under the key, whatever was there.

        before_commit: called when the content is whole and not yet under its key (fault points).
        """
        ...

    def put(self, key: str, content: bytes, *, if_match: str | None) -> str | None:
        """Put the content there if the key still has the tag `if_match` (None: if there is nothing).

        Returns the new tag; None when the condition did not hold, and then nothing was changed.
        """
        ...

    def delete(self, key: str, *, if_match: str) -> bool:
        """Remove the key if it still has that tag; False when it has not.

        Where a service deletes without a condition, an empty object put by If-Match may stand for absence.
        """
        ...

    def keys(self, prefix: str) -> list[str]:
        """The keys that start with `prefix` and have no further `/`, in order."""
        ...


class StoreBusy(OSError):
    """A conditional write could not be tried: another process holds the store's guard and does not end."""
