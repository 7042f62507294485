"""What became of each URL of a part so far, on disk: a killed process asks none of them again.

One SQLite file per part, so that the images of a part are never in memory together. A kill leaves what was
written; what a power cut leaves may be damaged, and is begun anew.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.fetching.fetcher import Fetched

TABLE = (
    "CREATE TABLE IF NOT EXISTS fetched (number INTEGER PRIMARY KEY, image BLOB, reason TEXT, detail TEXT)"
)
# Only one process ever has the file (the output's lock), so no lock is asked of a shared file system.
OPTIONS = "nolock=1"


class Journal:
    """The journal at a path, begun or gone on with. Numbers are those of the part's URLs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._open()
        except sqlite3.DatabaseError:
            self.remove()
            self._database = self._open()

    def add(self, number: int, fetched: Fetched) -> None:
        """Write what became of a URL, at once."""
        why = fetched.rejection
        row = (number, fetched.image, why and why.reason.value, why and why.detail)
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO fetched VALUES (?, ?, ?, ?)", row)

    def numbers(self) -> set[int]:
        """The URLs that are done."""
        return {number for (number,) in self._database.execute("SELECT number FROM fetched")}

    def images(self) -> int:
        """How many of them gave an image."""
        (count,) = self._database.execute("SELECT count(*) FROM fetched WHERE reason IS NULL").fetchone()
        return int(count)

    def entries(self) -> Iterator[tuple[int, Fetched]]:
        """All of them, in order of their numbers."""
        rows = self._database.execute("SELECT number, image, reason, detail FROM fetched ORDER BY number")
        for number, image, reason, detail in rows:
            rejection = None if reason is None else Rejection(Reason(reason), detail)
            yield number, Fetched(image, rejection)

    def close(self) -> None:
        self._database.close()

    def remove(self) -> None:
        """Close it and delete its files."""
        with suppress(AttributeError):
            self._database.close()
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink(missing_ok=True)

    def _open(self) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?{OPTIONS}"
        database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        try:
            database.execute("PRAGMA synchronous=OFF")
            database.execute("PRAGMA journal_mode=TRUNCATE")
            database.execute(TABLE)
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database
