"""Parquet corpora: `image` (bytes, or a struct with bytes, as Hugging Face writes it) or `image_path`;
`alt_text`; `url` if there is one; licence and source by their usual names (side_files.py), where they are
texts.

A row group is the least that can be read by itself, so the fragments of one are read in one pass. What is
held at a time is bounded by BATCH_BYTES and by the file's own pages.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from components.corpus.corpus_files import find_files
from components.corpus.fragments import MIB, Fragment, FragmentSize, Plan, RawRecord, cut_groups
from components.corpus.side_files import is_provenance, provenance
from components.errors import InputError, one_line

BATCH_ROWS = 256  # most rows decoded at a time
BATCH_BYTES = 16 * MIB  # about what is decoded at a time
NO_FILE = (OSError, ValueError)  # a name may be no possible one: with NULs in it, or too long
BUFFER_BYTES = 4 * MIB  # of a column, read at a time; with pre_buffer, Arrow reads whole row groups


def plan(path: str, limit: FragmentSize) -> Plan:
    """Fragments of every file in order of name; each file's columns are checked here, before any work."""
    fragments: list[Fragment] = []
    files: list[tuple[str, str]] = []
    stream = 0
    for name, file_path in find_files(path, (".parquet",)):
        with UPath(file_path).open("rb") as file:
            table = _opened(file, file_path)
            image = _image_column(table.schema_arrow, file_path)
            files.append((name, file_path))
            if image == "image_path":
                files += _pointed_at(table, name, file_path)
            for spans in cut_groups(_groups(table, image, file_path), limit):
                for start, stop in spans:
                    fragments.append(Fragment(len(fragments), "parquet", file_path, start, stop, stream))
                stream += 1
    return Plan(fragments, files)


def read(fragment: Fragment) -> Iterator[RawRecord]:
    folder = UPath(fragment.path).parent
    with UPath(fragment.path).open("rb") as file:
        table = _opened(file, fragment.path)
        image = _image_column(table.schema_arrow, fragment.path)
        carried = _carried(table.schema_arrow)
        for row in _rows(table, _columns(table, image), fragment):
            data = row[image]
            if image == "image_path":
                data = _file_bytes(folder, data)
            stated = provenance({name: row[name] for name in carried})
            yield RawRecord(data, row["alt_text"], row.get("url"), **stated)


def _columns(table: pq.ParquetFile, image: str) -> list[str]:
    schema = table.schema_arrow
    return [image, "alt_text", *(["url"] if "url" in schema.names else []), *_carried(schema)]


def _carried(schema: pa.Schema) -> list[str]:
    """The columns of texts that state a licence or a source."""
    return [field.name for field in schema if is_provenance(field.name) and _is_text(field.type)]


def _groups(table: pq.ParquetFile, image: str, path: str) -> list[tuple[int, int]]:
    """(rows, bytes) of each row group: of the columns that are read, and of the files that they point at."""
    columns = _columns(table, image)
    groups = []
    for number in range(table.metadata.num_row_groups):
        group = table.metadata.row_group(number)
        chunks = [group.column(column) for column in range(group.num_columns)]
        size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] in columns)
        if image == "image_path":
            pointers = _texts(table.read_row_group(number, [image])[image])
            size += sum(_file_size(UPath(path).parent, pointer) or 0 for pointer in pointers)
        groups.append((group.num_rows, size))
    return groups


def _rows(table: pq.ParquetFile, columns: list[str], fragment: Fragment) -> Iterator[dict[str, Any]]:
    """The fragment's rows, from the row groups it overlaps; about BATCH_BYTES of them are held at a time."""
    groups, first, offset, rows_in, bytes_in = [], None, 0, 0, 0
    for number in range(table.metadata.num_row_groups):
        group = table.metadata.row_group(number)
        if offset < fragment.stop and offset + group.num_rows > fragment.start:
            groups.append(number)
            first = offset if first is None else first
            rows_in += group.num_rows
            bytes_in += group.total_byte_size
        offset += group.num_rows
    batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES * rows_in // max(bytes_in, 1)))
    at = first or 0
    try:
        for batch in table.iter_batches(batch_rows, row_groups=groups, columns=columns):
            low, high = max(fragment.start - at, 0), min(fragment.stop - at, batch.num_rows)
            if low < high:
                yield from _decoded(batch.slice(low, high - low))
            at += batch.num_rows
            if at >= fragment.stop:
                return
    except pa.ArrowException as error:
        raise InputError(f"{fragment.path} is damaged: {one_line(error)}; fetch it again") from error


def _decoded(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The batch's rows. Texts that are not UTF-8 are made readable: one bad row does not stop the rest."""
    columns = [_values(column) for column in batch.columns]
    return (dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True))


def _values(column: pa.Array) -> list[Any]:
    """A column of texts, bytes, or structs with `bytes`, as Python's."""
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    return _texts(column) if _is_text(column.type) else column.to_pylist()


def _texts(column: pa.Array | pa.ChunkedArray) -> list[str | None]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        texts: list[str | None] = column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(pa.large_binary()).to_pylist()
        texts = [value if value is None else value.decode("utf-8", "replace") for value in raw]
    return texts


def _opened(file: Any, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except pa.ArrowException as error:
        raise InputError(f"{path} is no readable parquet file: {one_line(error)}; fetch it again") from error


def _image_column(schema: pa.Schema, path: str) -> str:
    """`image` or `image_path`, whichever there is, after every column's type has been checked."""
    name = "image" if "image" in schema.names else "image_path"
    there = ", ".join(schema.names)
    if name not in schema.names:
        raise InputError(
            f"{path}: column 'image' is missing; it has {there}; name one 'image' (bytes) or 'image_path'"
        )
    if "alt_text" not in schema.names:
        raise InputError(f"{path}: column 'alt_text' is missing; it has {there}; rename the text's column")
    wanted = [("alt_text", "a string", _is_text)]
    wanted.append(
        ("image", "binary or a struct with binary 'bytes'", _is_image)
        if name == "image"
        else ("image_path", "a string", _is_text)
    )
    if "url" in schema.names:
        wanted.append(("url", "a string", _is_text))
    for column, expected, fits in wanted:
        column_type = schema.field(column).type
        if not fits(column_type):
            raise InputError(f"{path}: column '{column}' is {column_type}, expected {expected}; cast it")
    return name


def _is_text(column_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(column_type):
        column_type = column_type.value_type
    return any(test(column_type) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_null))


def _is_image(column_type: pa.DataType) -> bool:
    if pa.types.is_struct(column_type):
        return column_type.get_field_index("bytes") >= 0 and _is_image(column_type.field("bytes").type)
    return any(test(column_type) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_null))


def _pointed_at(table: pq.ParquetFile, name: str, path: str) -> list[tuple[str, str]]:
    """The image files that the rows point at: they are the corpus's content too."""
    folder = UPath(path).parent
    prefix = PurePosixPath(name).parent
    pointers = {value for value in _texts(table.read(["image_path"])["image_path"]) if value}
    there = sorted(pointer for pointer in pointers if _file_size(folder, pointer) is not None)
    return [(str(prefix / pointer), str(folder / pointer)) for pointer in there]


def _file_bytes(folder: UPath, pointer: str | None) -> bytes | None:
    """The bytes of the file beside the table; None where there is no such file or it lies elsewhere."""
    if not pointer or not _is_inside(pointer):
        return None
    try:
        return (folder / pointer).read_bytes()
    except NO_FILE:
        return None


def _file_size(folder: UPath, pointer: str | None) -> int | None:
    """Bytes of that file; None where there is none."""
    if not pointer or not _is_inside(pointer):
        return None
    try:
        file = folder / pointer
        return int(file.stat().st_size) if file.is_file() else None
    except NO_FILE:
        return None


def _is_inside(pointer: str) -> bool:
    """A table must not make us read files outside its own folder."""
    return not PurePosixPath(pointer).is_absolute() and ".." not in PurePosixPath(pointer).parts
