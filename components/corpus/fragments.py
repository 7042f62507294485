"""What a corpus is cut into: fragments, the units of work, and the raw records read from them.

The readers make and read these (readers.py); stages hand fragments to workers, as JSON or pickled.
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class RawRecord:
    """A record as the crawl left it: encoded bytes, text, origin; any may be missing."""

    image: bytes | None
    alt_text: str | None
    url: str | None


@dataclass(frozen=True)
class FolderMember:
    """One record of a folder corpus. Paths are relative to the folder; `alt_text` comes from its table."""

    image: str | None
    sidecar: str | None  # a .txt beside the image, read with it
    alt_text: str | None
    url: str


@dataclass(frozen=True)
class Fragment:
    """Records `start` to `stop` of one file (parquet, webdataset) or folder; read by `read_fragment`."""

    index: int  # among the corpus's fragments
    kind: str  # parquet, folder or webdataset
    path: str
    start: int
    stop: int
    members: tuple[FolderMember, ...] = ()  # of a folder: the records themselves

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Fragment":
        members = tuple(FolderMember(**member) for member in data.get("members", ()))
        return cls(**{**data, "members": members})


def cut(total: int, rows_per_fragment: int) -> list[tuple[int, int]]:
    """(start, stop) of each fragment of `total` records."""
    return [(start, min(start + rows_per_fragment, total)) for start in range(0, total, rows_per_fragment)]
