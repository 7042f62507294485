"""Raw corpora as records: `open_corpus` plans the fragments, `read_fragment` reads one of them.

A corpus is named by `parquet:PATH`, `folder:PATH` or `webdataset:PATH`; PATH may be remote (`s3://…`).
What is wrong with the corpus as a whole is a ValueError when it is opened; what is wrong with one record
shows as a field that is None, and is the filter's to reject.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from upath import UPath

from components.corpus import reader_folder, reader_parquet
from components.corpus import reader_webdataset as reader_tar
from components.corpus.fragments import Fragment, RawRecord

__all__ = ["Corpus", "Fragment", "RawRecord", "open_corpus", "read_fragment"]

KINDS = ("parquet", "folder", "webdataset")
_CHUNK = 1 << 20  # bytes hashed at a time


@dataclass(frozen=True)
class Corpus:
    """A corpus as planned: its fragments in order, and every file that its records come from."""

    uri: str
    kind: str
    fragments: list[Fragment]
    files: list[tuple[str, str]]  # (name within the corpus, path)

    @property
    def rows(self) -> int:
        return sum(fragment.rows for fragment in self.fragments)

    def digest(self) -> str:
        """sha256 of the kind, and of each file's name and content: where the corpus lies does not matter."""
        total = hashlib.sha256(self.kind.encode())
        for name, path in self.files:
            total.update(f"\n{name} {_file_digest(path)}".encode())
        return total.hexdigest()


def open_corpus(uri: str, rows_per_fragment: int = 512) -> Corpus:
    """Plan the corpus at `parquet:PATH | folder:PATH | webdataset:PATH`; reads no image.

    PATH is a file, a folder or a glob. Raises ValueError, one line, where it cannot be read as such.
    """
    kind, colon, path = uri.partition(":")
    if not colon or kind not in KINDS or not path:
        raise ValueError(
            f"corpus '{uri}' is not understood; write {', '.join(f'{kind}:PATH' for kind in KINDS)}"
        )
    if rows_per_fragment < 1:
        raise ValueError(f"rows_per_fragment is {rows_per_fragment}; it must be 1 or more")
    reader = {"parquet": reader_parquet, "folder": reader_folder, "webdataset": reader_tar}[kind]
    try:
        fragments, files = reader.plan(path, rows_per_fragment)
    except OSError as error:
        raise ValueError(f"corpus '{uri}' cannot be read: {_one_line(error)}") from error
    if not fragments:
        raise ValueError(f"corpus '{uri}' holds no records; check the path")
    return Corpus(uri, kind, fragments, files)


def read_fragment(fragment: Fragment) -> Iterator[RawRecord]:
    """The fragment's records in order. Raises ValueError where its file is gone, changed or damaged."""
    reader = {"parquet": reader_parquet, "folder": reader_folder, "webdataset": reader_tar}[fragment.kind]
    count = 0
    try:
        for record in reader.read(fragment):
            count += 1
            yield record
    except OSError as error:
        raise ValueError(f"corpus file {fragment.path} cannot be read: {_one_line(error)}") from error
    if count != fragment.rows:
        raise ValueError(
            f"corpus file {fragment.path} changed while in use: {count} records where {fragment.rows} were"
            " planned; run again"
        )


def _file_digest(path: str) -> str:
    digest = hashlib.sha256()
    with UPath(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _one_line(error: OSError) -> str:
    return " ".join(str(error).split()) or type(error).__name__
