"""Raw corpora as records: `open_corpus` plans the fragments, `read_fragment` reads one of them.

A corpus is named by `parquet:PATH`, `folder:PATH` or `webdataset:PATH`; PATH may be remote (`s3://…`).
What is wrong with the corpus as a whole is an InputError when it is opened; what is wrong with one record
shows as a field that is None, and is the filter's to reject. Texts are made valid Unicode here, whatever the
file, its JSON or its name held.

Some fragments can only be read one after the other (those of one Parquet row group, of one compressed tar).
`Corpus.streams` groups them, and `read_stream` reads such a group in one pass.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from types import ModuleType

from upath import UPath

from components.corpus import reader_folder, reader_parquet, reader_webdataset
from components.corpus.fragments import Fragment, FragmentSize, Plan, RawRecord, streams
from components.corpus.locations import reading_errors
from components.errors import InputError, one_line

__all__ = [
    "Corpus",
    "Fragment",
    "FragmentSize",
    "RawRecord",
    "file_digest",
    "open_corpus",
    "read_fragment",
    "read_stream",
]

READERS: dict[str, ModuleType] = {
    "parquet": reader_parquet,
    "folder": reader_folder,
    "webdataset": reader_webdataset,
}
_HASHED_AT_A_TIME = 1 << 20  # bytes


@dataclass(frozen=True)
class Corpus:
    """A corpus as planned: its fragments in order, and every file that its records come from."""

    uri: str
    kind: str
    fragments: list[Fragment]
    files: list[tuple[str, str]]  # (name within the corpus, path)
    skipped: dict[str, int] = field(default_factory=dict)  # what is no part of a record, by kind

    @property
    def rows(self) -> int:
        return sum(fragment.rows for fragment in self.fragments)

    @property
    def streams(self) -> list[list[Fragment]]:
        """The fragments in groups that are read in one pass each; most groups have one."""
        return streams(self.fragments)

    def digest(self) -> str:
        """sha256 of the kind, and of each file's name and content: where the corpus lies does not matter."""
        total = hashlib.sha256(self.kind.encode())
        for name, path in self.files:
            total.update(f"\n{name} {file_digest(path)}".encode("utf-8", "surrogateescape"))
        return total.hexdigest()


def open_corpus(
    uri: str,
    rows_per_fragment: int = FragmentSize.rows,
    fragment_bytes: int = FragmentSize.bytes,
) -> Corpus:
    """Plan the corpus at `parquet:PATH | folder:PATH | webdataset:PATH`; reads no image.

    PATH is a file, a folder or a glob. fragment_bytes: of the images and texts of one fragment, as stored.
    Raises InputError, one line, where it cannot be read as such.
    """
    kind, colon, path = uri.partition(":")
    if not colon or kind not in READERS or not path:
        raise InputError(
            f"corpus '{uri}' is not understood; write {', '.join(f'{kind}:PATH' for kind in READERS)}"
        )
    limit = FragmentSize(rows_per_fragment, fragment_bytes)
    try:
        plan: Plan = READERS[kind].plan(path, limit)
    except reading_errors() as error:
        raise InputError(f"corpus '{uri}' cannot be read: {one_line(error)}") from error
    if not plan.fragments:
        raise InputError(f"corpus '{uri}' holds no records; check the path")
    return Corpus(uri, kind, plan.fragments, plan.files, plan.skipped)


def read_fragment(fragment: Fragment) -> Iterator[RawRecord]:
    """The fragment's records in order. Raises InputError where its file is gone, changed or damaged."""
    count = 0
    try:
        for record in READERS[fragment.kind].read(fragment):
            count += 1
            yield RawRecord(
                record.image,
                valid_text(record.alt_text),
                _valid_name(record.url),
                valid_text(record.license),
                valid_text(record.source),
                record.damaged,
            )
    except reading_errors() as error:
        raise InputError(f"corpus file {fragment.path} cannot be read: {one_line(error)}") from error
    if count != fragment.rows:
        raise InputError(
            f"corpus file {fragment.path} changed while in use: {count} records where {fragment.rows} were"
            " planned; run again"
        )


def read_stream(fragments: Sequence[Fragment]) -> Iterator[tuple[Fragment, Iterable[RawRecord]]]:
    """Neighbouring fragments of one stream, each with its records, read in one pass.

    What is left of a fragment's records is skipped when the next fragment is taken.
    """
    first, last = fragments[0], fragments[-1]
    members = tuple(member for fragment in fragments for member in fragment.members)
    records = read_fragment(replace(first, stop=last.stop, members=members))
    for fragment in fragments:
        its_records = islice(records, fragment.rows)
        yield fragment, its_records
        for _ in its_records:
            pass


def valid_text(text: str | None) -> str | None:
    """`text` without halves of surrogate pairs, which JSON may hold and nothing can write."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _valid_name(name: str | None) -> str | None:
    """The same for a url or a place in the corpus, escaped: two names, of any bytes, stay two."""
    if name is None or name.isascii():
        return name
    return name.encode("utf-8", "backslashreplace").decode()


def file_digest(path: str) -> str:
    """sha256 (hex) of the file at a path or URL."""
    digest = hashlib.sha256()
    with UPath(path).open("rb") as file:
        while chunk := file.read(_HASHED_AT_A_TIME):
            digest.update(chunk)
    return digest.hexdigest()
