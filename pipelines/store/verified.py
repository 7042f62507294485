"""What was hashed before: HOME/cache/verified.json, by the files' sizes, times and inodes.

A terabyte is hashed once, not at every command. An entry is (name -> state of the files, value): as long as
every file has the size, modification time and inode it had, the value stands. An edit that keeps all three
is what `straightshot verify` finds.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.store.local import LocalStore
from pipelines.store.store import Stored

if TYPE_CHECKING:
    from upath import UPath

KEY = "cache/verified.json"
ATTEMPTS = 20  # at writing the file while other processes write it


@dataclass(frozen=True)
class VerifiedFiles:
    """The memory of one HOME. Nothing is written into a HOME that is not there or not writable."""

    home: Path

    def recall(self, name: str, state: str) -> str | None:
        """The value that was recorded under `name` when the files were in this state."""
        entry = _entries(self._store.read(KEY)).get(name)
        return entry[1] if entry is not None and entry[0] == state else None

    def record(self, name: str, state: str, value: str) -> None:
        """Remember the value of the files in this state, instead of an earlier one."""
        self._change(lambda entries: entries.__setitem__(name, (state, value)))

    def forget(self, name: str) -> None:
        """Have the files behind `name` hashed again at the next look."""
        self._change(lambda entries: entries.pop(name, None))

    def value(self, name: str, state: str, compute: Callable[[], str]) -> str:
        """`compute()`, remembered for as long as the files stay in this state."""
        value = self.recall(name, state)
        if value is None:
            value = compute()
            self.record(name, state, value)
        return value

    @property
    def _store(self) -> LocalStore:
        return LocalStore(self.home)

    def _change(self, change: Callable[[dict[str, tuple[str, str]]], object]) -> None:
        if not os.access(self.home, os.W_OK):  # a look at somebody else's HOME
            return
        with suppress(OSError):  # a full disk must not stop a look; the files are hashed again next time
            for _ in range(ATTEMPTS):
                stored = self._store.read(KEY)
                entries = _entries(stored)
                before = dict(entries)
                change(entries)
                content = json.dumps(entries, indent=1, sort_keys=True).encode()
                tag = stored.tag if stored else None
                if entries == before or self._store.put(KEY, content, if_match=tag) is not None:
                    return


def state_of(paths: Iterable["Path | UPath"]) -> str | None:
    """sha256 over the paths, sizes, modification times and inodes of files; None when one is missing.

    An object store has an e-tag for an inode; None where it has none.
    """
    state = hashlib.sha256()
    for path in paths:
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not (identity := _identity(stat)):
            return None
        state.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0{identity}\n".encode())
    return state.hexdigest()


def _identity(stat: Any) -> Any:
    return stat.st_ino or (stat.as_info().get("ETag") if hasattr(stat, "as_info") else None)


def _entries(stored: Stored | None) -> dict[str, tuple[str, str]]:
    """The entries of the file; none when it is absent or cannot be read."""
    try:
        values = json.loads(stored.content) if stored else {}
        return {str(name): (str(entry[0]), str(entry[1])) for name, entry in values.items()}
    except (ValueError, AttributeError, TypeError, LookupError):
        return {}
