"""The CSV and JSONL tables of folder corpora: a row an image, its text and its provenance.

The folder itself has one table of any name; a folder in it may have a metadata.csv or metadata.jsonl of its
own, as Hugging Face's imagefolder writes it, whose file names are relative to it.
"""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from upath import UPath

from components.corpus.side_files import is_provenance, provenance
from components.errors import InputError

TABLES = (".csv", ".jsonl")
METADATA = ("metadata.csv", "metadata.jsonl")  # of the folders within
FILE_COLUMNS = ("file_name", "image_path", "image", "file")
TEXT_COLUMNS = ("alt_text", "caption", "text")


@dataclass(frozen=True)
class TableRow:
    """What a table says of an image. has_text: whether its table has a column of texts at all."""

    alt_text: str | None
    has_text: bool
    provenance: dict[str, str]


@dataclass(frozen=True)
class CaptionTables:
    """The tables of a folder by name, and their rows by the image's name; both relative to the folder."""

    names: list[str] = field(default_factory=list)
    rows: dict[str, TableRow] = field(default_factory=dict)


def read_tables(root: str, names: list[str], skipped: Counter[str]) -> CaptionTables:
    """The tables among a folder's files; of several rows for one image, the first counts.

    Raises InputError where the folder itself has several, or one that is no such table. One of a folder
    within is counted in `skipped` then, and its images go without it.
    """
    tables = CaptionTables()
    own = [name for name in names if "/" not in name and name.lower().endswith(TABLES)]
    if len(own) > 1:
        raise InputError(f"{root} has several caption tables ({', '.join(own)}); leave one")
    for name in own:
        tables.names.append(name)
        _add_rows(tables, root, name, skipped)
    for name in names:
        path = PurePosixPath(name)
        if len(path.parts) > 1 and path.name.lower() in METADATA:
            tables.names.append(name)
            try:
                _add_rows(tables, root, name, skipped)
            except InputError:
                skipped["metadata of a folder that is no table"] += 1
    return tables


def _add_rows(tables: CaptionTables, root: str, table: str, skipped: Counter[str]) -> None:
    where = str(UPath(root) / table)
    text = UPath(where).read_bytes().decode("utf-8-sig", "replace")
    lines = where.lower().endswith(".jsonl")
    rows = list(_json_rows(text, where, skipped) if lines else _csv_rows(text, where))
    if not rows:
        return
    columns = list(dict.fromkeys(str(column) for row in rows for column in row))
    file_column = _column(FILE_COLUMNS, columns, where)
    says_more = any(map(is_provenance, columns))  # then its images may have their texts beside them
    texts = bool(set(TEXT_COLUMNS) & set(columns)) or not says_more
    text_column = _column(TEXT_COLUMNS, columns, where) if texts else None
    for row in rows:
        name, caption = row.get(file_column), row.get(text_column) if text_column else None
        if not isinstance(name, str) or not name:
            skipped["row of the table without a file name"] += 1
        elif (name := str(PurePosixPath(table).parent / name)) in tables.rows:
            skipped["second caption of an image"] += 1
        else:
            caption = caption if isinstance(caption, str) else None
            tables.rows[name] = TableRow(caption, texts, provenance(row))


def _json_rows(text: str, where: str, skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    """A line that is no JSON object costs its image the caption; only when all are is the table at fault."""
    lines = [line for line in text.split("\n") if line.strip()]
    parsed = 0
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            parsed += 1
            yield row
        else:
            skipped["line of the table that is no JSON object"] += 1
    if lines and not parsed:
        raise InputError(f"{where}: no line is a JSON object; write one object a line")


def _csv_rows(text: str, where: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(sys.maxsize)  # by default 128 KiB a cell
    try:
        yield from csv.DictReader(io.StringIO(text, newline=""))
    except csv.Error as error:
        raise InputError(f"{where} is no readable CSV: {error}; correct it") from error


def _column(candidates: tuple[str, ...], columns: list[str], where: str) -> str:
    for candidate in candidates:
        if candidate in columns:
            return candidate
    raise InputError(
        f"{where}: column '{candidates[0]}' is missing; it has {', '.join(columns)};"
        f" name one {' or '.join(repr(name) for name in candidates)}"
    )
