"""A list of URLs, `urls:PATH`: Parquet or CSV files with a column of URLs and one of alt texts.

A list may be longer than memory, so it is only read in batches. `split_by_host` cuts it into groups, each a
Parquet file, so that all URLs of a host are in one group and the limits of a host hold wherever the groups
are worked on.
"""

import csv
import io
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from components.corpus.corpus_files import find_files
from components.corpus.locations import reading_errors
from components.corpus.readers import Corpus
from components.errors import InputError, one_line

KIND = "urls"
SUFFIXES = (".parquet", ".csv")
URL, ALT_TEXT = "url", "alt_text"  # columns of every group, and of what is fetched
OWN = ("key", "sha256", "image")  # columns of what is fetched that a list cannot have
BATCH_ROWS = 4096
BYTES_PER_GROUP = 2**20  # of the list's files: some 5,000 to 10,000 URLs
MOST_GROUPS = 256  # files that are written at the same time


@dataclass(frozen=True)
class UrlList:
    """A list as found. files: (name within the list, path); columns: of the groups, in order."""

    uri: str
    files: tuple[tuple[str, str], ...]
    schema: pa.Schema
    url_column: str
    text_column: str | None

    def digest(self) -> str:
        """sha256 of each file's name and content."""
        return Corpus(self.uri, KIND, [], list(self.files)).digest()

    def groups(self) -> int:
        """Into how many groups it is split, by its size alone."""
        size = sum(UPath(path).stat().st_size for _, path in self.files)
        return max(1, min(MOST_GROUPS, size // BYTES_PER_GROUP))

    def rows(self) -> int:
        """How many rows it has; reads CSV files from end to end."""
        total = 0
        for _, path in self.files:
            if path.lower().endswith(".csv"):
                total += sum(len(batch) for batch in _csv_batches(path, self))
            else:
                with UPath(path).open("rb") as file:
                    total += pq.ParquetFile(file).metadata.num_rows
        return total

    def batches(self) -> Iterator[pa.Table]:
        """Its rows in order, in the columns of `schema`. Raises InputError for a file that is damaged."""
        for _, path in self.files:
            try:
                if path.lower().endswith(".csv"):
                    yield from _csv_batches(path, self)
                else:
                    yield from _parquet_batches(path, self)
            except reading_errors(pa.ArrowException, csv.Error) as error:
                raise InputError(f"{path} cannot be read: {one_line(error)}; write it again") from error


def open_url_list(uri: str, url_column: str = URL, text_column: str = ALT_TEXT) -> UrlList:
    """The list at `urls:PATH`, a file, a folder or a glob. Raises InputError where it cannot be read as such.

    A list without a column of alt texts has none, and its records end at the filter; the other columns travel
    on with their types. Of CSV files all columns are texts.
    """
    path = uri.partition(":")[2]
    if not path:
        raise InputError(f"corpus '{uri}' names no list; write {KIND}:PATH with a .parquet or .csv file")
    try:
        files = [(name, file) for name, file in find_files(path, SUFFIXES) if file.lower().endswith(SUFFIXES)]
        if not files:
            raise InputError(f"corpus '{uri}' is no .parquet or .csv file; write the list as one")
        schemas = [_schema_of(file) for _, file in files]
    except reading_errors(pa.ArrowException, csv.Error) as error:
        raise InputError(f"corpus '{uri}' cannot be read: {one_line(error)}") from error
    for (_, file), schema in zip(files, schemas, strict=True):
        if url_column not in schema.names:
            raise InputError(
                f"{file}: no column '{url_column}' of URLs; it has {', '.join(schema.names)}: name it with"
                " --set fetch.url_column=NAME (and fetch.alt_text_column=NAME)"
            )
    found = text_column if any(text_column in schema.names for schema in schemas) else None
    named = {url_column: URL, text_column: ALT_TEXT}
    fields: dict[str, pa.Field] = {URL: pa.field(URL, pa.string()), ALT_TEXT: pa.field(ALT_TEXT, pa.string())}
    for (_, file), schema in zip(files, schemas, strict=True):
        for field in schema:
            name = named.get(field.name, field.name)
            if name in (URL, ALT_TEXT) or field.name in OWN:
                continue
            known = fields.setdefault(name, pa.field(name, field.type))
            if known.type != field.type:
                raise InputError(
                    f"{file}: column '{name}' is {field.type}, elsewhere {known.type}; make it one"
                )
    return UrlList(uri, tuple(files), pa.schema(fields.values()), url_column, found)


def split_by_host(urls: UrlList, folder: Path, groups: int) -> list[int]:
    """Write the groups, group-00000.parquet and so on, each in the list's order. Returns the rows of each."""
    rows = [0] * groups
    with ExitStack() as stack:
        writers = [
            stack.enter_context(pq.ParquetWriter(group_path(folder, number), urls.schema))
            for number in range(groups)
        ]
        waiting: list[list[pa.Table]] = [[] for _ in range(groups)]
        for batch in urls.batches():
            for number, part in _by_group(batch, groups):
                waiting[number].append(part)
                rows[number] += len(part)
                if sum(map(len, waiting[number])) >= BATCH_ROWS:
                    writers[number].write_table(pa.concat_tables(waiting[number]))
                    waiting[number] = []
        for number, parts in enumerate(waiting):
            if parts:
                writers[number].write_table(pa.concat_tables(parts))
    return rows


def group_path(folder: Path, number: int) -> Path:
    return folder / f"group-{number:05d}.parquet"


def _by_group(batch: pa.Table, groups: int) -> Iterator[tuple[int, pa.Table]]:
    if groups == 1:
        yield 0, batch
        return
    members: dict[int, list[int]] = {}
    for row, url in enumerate(batch[URL].to_pylist()):
        members.setdefault(zlib.crc32(_host(url).encode("utf-8", "replace")) % groups, []).append(row)
    for number in sorted(members):
        yield number, batch.take(members[number])


def _host(url: str | None) -> str:
    """The host that a URL names; the URL itself where it names none."""
    try:
        return urlsplit(url or "").hostname or url or ""
    except ValueError:
        return url or ""


def _schema_of(path: str) -> pa.Schema:
    if not path.lower().endswith(".csv"):
        with UPath(path).open("rb") as file:
            return pq.read_schema(file)
    with UPath(path).open("rb") as file:
        header = next(_csv_rows(file), None)
    if header is None:
        raise InputError(f"{path} is empty; write a header with the names of the columns")
    return pa.schema([(name, pa.string()) for name in dict.fromkeys(header)])


def _parquet_batches(path: str, urls: UrlList) -> Iterator[pa.Table]:
    with UPath(path).open("rb") as file:
        for batch in pq.ParquetFile(file, pre_buffer=False).iter_batches(BATCH_ROWS):
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            yield _shaped(columns, batch.num_rows, urls)


def _csv_batches(path: str, urls: UrlList) -> Iterator[pa.Table]:
    with UPath(path).open("rb") as file:
        rows = _csv_rows(file)
        header = next(rows, [])
        batch: list[Sequence[str]] = []
        for row in rows:
            if not row:
                continue  # a blank line
            batch.append(row)
            if len(batch) == BATCH_ROWS:
                yield _table_of(header, batch, urls)
                batch = []
        if batch:
            yield _table_of(header, batch, urls)


def _csv_rows(file: Any) -> Iterator[list[str]]:
    """Rows of cells of any length; bytes that are not UTF-8 become replacement characters."""
    csv.field_size_limit(sys.maxsize)
    yield from csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline=""))


def _table_of(header: Sequence[str], rows: Sequence[Sequence[str]], urls: UrlList) -> pa.Table:
    """Rows as a table: of cells that are missing or empty null, of cells without a column nothing."""
    columns = {
        name: pa.array([(row[i] or None) if i < len(row) else None for row in rows], pa.string())
        for i, name in enumerate(header)
    }
    return _shaped(columns, len(rows), urls)


def _shaped(columns: Mapping[str, Any], rows: int, urls: UrlList) -> pa.Table:
    """Columns as `urls.schema` has them; those that a file lacks are null."""
    names = {URL: urls.url_column, ALT_TEXT: urls.text_column or ALT_TEXT}
    arrays = []
    for field in urls.schema:
        column = columns.get(names.get(field.name, field.name))
        if column is None:
            arrays.append(pa.nulls(rows, field.type))
        elif field.name in names:
            arrays.append(_texts(column))
        else:
            arrays.append(column.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=urls.schema)


def _texts(column: Any) -> pa.Array:
    """A column as texts: what is not UTF-8 made readable, numbers as they are written."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    textual = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)
    if textual or pa.types.is_large_binary(kind):
        raw = column.cast(pa.large_binary()).to_pylist()
        return pa.array([v if v is None else v.decode("utf-8", "replace") for v in raw], pa.string())
    return column.cast(pa.string())
