"""A store in a local folder, or in one that several hosts have mounted.

A whole write is a rename. A conditional one is a look and a rename under an operating-system lock (filelock)
on a guard file in the key's folder, which the system gives back when its holder dies.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from components.durable import TEMPORARY, Flushed, Written, nothing, write_bytes, write_file
from pipelines.store.store import StoreBusy, Stored

GUARD = ".guard"
GUARD_SECONDS = 4.0  # a conditional write takes milliseconds, and a second run names the owner within 5 s


@dataclass(frozen=True)
class LocalStore:
    """The files under `root`. Picklable. run_id marks the temporaries of one run.

    flushed: what the disk holds of a file that `write` has written (durable.py).
    """

    root: Path
    run_id: str = ""
    flushed: Flushed = "name"

    def read(self, key: str) -> Stored | None:
        try:
            with (self.root / key).open("rb") as file:
                modified = os.fstat(file.fileno()).st_mtime
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Stored(content, _tag(content), modified)

    def write(
        self, key: str, fill: Callable[[Path], object], *, before_commit: Callable[[], None] = nothing
    ) -> Written:
        suffix = f"{self.run_id}-{secrets.token_hex(4)}" if self.run_id else ""
        return write_file(
            self.root / key, fill, suffix=suffix, before_rename=before_commit, flushed=self.flushed
        )

    def put(self, key: str, content: bytes, *, if_match: str | None) -> str | None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with _guarded(path):
            stored = self.read(key)
            if (stored.tag if stored else None) != if_match:
                return None
            write_bytes(path, content)
        return _tag(content)

    def delete(self, key: str, *, if_match: str) -> bool:
        path = self.root / key
        if not path.parent.is_dir():
            return False
        with _guarded(path):
            stored = self.read(key)
            if stored is None or stored.tag != if_match:
                return False
            path.unlink()
        return True

    def keys(self, prefix: str) -> list[str]:
        folder, _, start = prefix.rpartition("/")
        at = self.root / folder
        if not at.is_dir():
            return []
        names = [path.name for path in at.iterdir() if path.name.startswith(start) and path.is_file()]
        return sorted(
            f"{folder}/{name}" if folder else name
            for name in names
            if TEMPORARY not in name and name != GUARD
        )


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """Only one conditional write at a time in the folder of `path`, over all processes and threads."""
    guard = FileLock(path.with_name(GUARD), timeout=GUARD_SECONDS, poll_interval=0.01)
    try:
        guard.acquire()
    except Timeout:
        raise StoreBusy(f"{path}: another process is writing there and does not end") from None
    try:
        yield
    finally:
        guard.release()


def _tag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
