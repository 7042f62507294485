"""What a corpus is cut into: fragments, the units of work, and the raw records read from them.

The readers make and read these (readers.py); stages hand fragments to workers, as JSON or pickled.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

from components.errors import InputError

MIB = 2**20


@dataclass(frozen=True)
class FragmentSize:
    """How large a fragment may be: records, and bytes as they lie uncompressed in the corpus.

    A single record that is larger than `bytes` is a fragment by itself.
    """

    rows: int = 512
    bytes: int = 256 * MIB

    def __post_init__(self) -> None:
        for name, value in (("rows_per_fragment", self.rows), ("fragment_bytes", self.bytes)):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be 1 or more")


@dataclass(frozen=True)
class RawRecord:
    """A record as the crawl left it: encoded bytes, text, origin; any may be missing.

    license, source: where the corpus has such fields (PROVENANCE in schemas.py). damaged: what stands beside
    the image and cannot be read, in words.
    """

    image: bytes | None
    alt_text: str | None
    url: str | None
    license: str | None = None
    source: str | None = None
    damaged: str | None = None


@dataclass(frozen=True)
class FolderMember:
    """One record of a folder corpus. Paths are relative to the folder; what is no path is from a table."""

    image: str | None
    sidecar: str | None  # a .txt beside the image, read with it
    alt_text: str | None
    url: str
    fields: str | None = None  # a .json beside the image, read with it
    license: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Fragment:
    """Records `start` to `stop` of one file (parquet, webdataset) or folder; read by readers.py.

    Fragments of one stream can only be read one after the other (a Parquet row group, a compressed tar): one
    worker reads them all, so that nothing is read twice.
    """

    index: int  # among the corpus's fragments
    kind: str  # parquet, folder or webdataset
    path: str
    start: int
    stop: int
    stream: int = 0  # fragments with the same number are read in one pass
    offset: int = 0  # bytes: where in the file it can be read from
    first: int = 0  # the number of the record that lies there; `start` may be a few records later
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


@dataclass(frozen=True)
class Plan:
    """What a reader finds in a corpus. files: (name within the corpus, path) of all that records come from.

    skipped: what it holds that is no part of a record, by kind, and how often.
    """

    fragments: list[Fragment]
    files: list[tuple[str, str]]
    skipped: dict[str, int] = field(default_factory=dict)


def streams(fragments: Iterable[Fragment]) -> list[list[Fragment]]:
    """The fragments by stream, in order: what is read in one pass, by one worker."""
    return [list(group) for _, group in groupby(fragments, key=lambda fragment: fragment.stream)]


def cut_records(sizes: Sequence[int], limit: FragmentSize) -> list[tuple[int, int]]:
    """(start, stop) of each fragment of records that can be read from anywhere. sizes: of each, in bytes."""
    spans = []
    start = filled = 0
    for index, size in enumerate(sizes):
        if index > start and (index - start == limit.rows or filled + size > limit.bytes):
            spans.append((start, index))
            start, filled = index, 0
        filled += size
    return [*spans, (start, len(sizes))] if sizes else []


def cut_groups(groups: Sequence[tuple[int, int]], limit: FragmentSize) -> list[list[tuple[int, int]]]:
    """(start, stop) of each fragment of (rows, bytes) groups, by stream; a group is never in two streams.

    Neighbouring groups that fit into one fragment together make one. A group that is larger than a fragment
    is a stream of several, by the average size of its records: what a single one takes is not known.
    """
    cut: list[list[tuple[int, int]]] = []
    at = filled = 0
    for rows, size in groups:
        if not rows:
            continue
        if cut and len(cut[-1]) == 1 and _fits(at - cut[-1][0][0] + rows, filled + size, limit):
            cut[-1] = [(cut[-1][0][0], at + rows)]
            filled += size
        else:
            each = max(1, min(limit.rows, limit.bytes * rows // max(size, 1)))
            cut.append([(start, min(start + each, at + rows)) for start in range(at, at + rows, each)])
            filled = size
        at += rows
    return cut


def _fits(rows: int, size: int, limit: FragmentSize) -> bool:
    return rows <= limit.rows and size <= limit.bytes
