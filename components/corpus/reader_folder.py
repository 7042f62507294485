"""Folder corpora: image files with a `.txt` beside each, or one CSV or JSONL table of captions in it.

Every file, and every row of the table, is a record, a part of one, or counted as skipped.
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

from components.corpus.corpus_files import IMAGE_EXTENSIONS, folder_files
from components.corpus.fragments import FolderMember, Fragment, FragmentSize, Plan, RawRecord, cut_records
from components.errors import InputError

IMAGES = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
TABLES = (".csv", ".jsonl")
SIDECAR = ".txt"
FILE_COLUMNS = ("file_name", "image_path", "image", "file")
TEXT_COLUMNS = ("alt_text", "caption", "text")


@dataclass(frozen=True)
class _Table:
    """The folder's table of captions: its name, None where there is none, and its captions by file name."""

    name: str | None = None
    captions: dict[str, str | None] = field(default_factory=dict)


def plan(path: str, limit: FragmentSize) -> Plan:
    """Fragments over the folder's images by name, and over what its table names besides."""
    skipped = Counter[str]()
    root, names = folder_files(path, skipped)
    table = _table(root, names, skipped)
    present = set(names)
    images = [name for name in names if name.lower().endswith(IMAGES) or name in table.captions]
    absent = sorted(set(table.captions) - present)
    members = [_member(name, present, table.captions) for name in images]
    members += [FolderMember(None, None, table.captions[name], name) for name in absent]
    sizes = [_size(UPath(root), member.image) for member in members]
    fragments = [
        Fragment(index, "folder", root, start, stop, stream=index, members=tuple(members[start:stop]))
        for index, (start, stop) in enumerate(cut_records(sizes, limit))
    ]
    sidecars = {member.sidecar for member in members if member.sidecar}
    used = {*images, *sidecars, *([table.name] if table.name else [])}
    for name in sorted(present - used):
        skipped[
            "text without an image of its own" if name.endswith(SIDECAR) else "file that is no image"
        ] += 1
    return Plan(fragments, [(name, str(UPath(root) / name)) for name in sorted(used)], dict(+skipped))


def read(fragment: Fragment) -> Iterator[RawRecord]:
    root = UPath(fragment.path)
    for member in fragment.members:
        sidecar = _bytes_or_none(root, member.sidecar)
        text = member.alt_text if sidecar is None else sidecar.decode("utf-8-sig", "replace")
        yield RawRecord(_bytes_or_none(root, member.image), text, member.url)


def _bytes_or_none(root: UPath, name: str | None) -> bytes | None:
    """One file that cannot be read is one record with less in it, not the end of the fragment."""
    try:
        return (root / name).read_bytes() if name else None
    except OSError:
        return None


def _size(root: UPath, name: str | None) -> int:
    """Bytes of one file; 0 where it cannot be looked at."""
    try:
        return int((root / name).stat().st_size) if name else 0
    except OSError:
        return 0


def _member(name: str, names: set[str], captions: dict[str, str | None]) -> FolderMember:
    sidecar = str(PurePosixPath(name).with_suffix(SIDECAR))
    if name in captions or sidecar not in names:
        return FolderMember(name, None, captions.get(name), name)
    return FolderMember(name, sidecar, None, name)


def _table(root: str, names: list[str], skipped: Counter[str]) -> _Table:
    """The folder's one table; of several rows for one image, the first counts."""
    tables = [name for name in names if "/" not in name and name.lower().endswith(TABLES)]
    if not tables:
        return _Table()
    if len(tables) > 1:
        raise InputError(f"{root} has several caption tables ({', '.join(tables)}); leave one")
    where = str(UPath(root) / tables[0])
    text = UPath(where).read_bytes().decode("utf-8-sig", "replace")
    rows = list(
        _json_rows(text, where, skipped) if where.lower().endswith(".jsonl") else _csv_rows(text, where)
    )
    if not rows:
        return _Table(tables[0])
    columns = list(dict.fromkeys(str(column) for row in rows for column in row))
    file_column = _column(FILE_COLUMNS, columns, where)
    text_column = _column(TEXT_COLUMNS, columns, where)
    captions: dict[str, str | None] = {}
    for row in rows:
        name, caption = row.get(file_column), row.get(text_column)
        if not isinstance(name, str) or not name:
            skipped["row of the table without a file name"] += 1
        elif (name := str(PurePosixPath(name))) in captions:
            skipped["second caption of an image"] += 1
        else:
            captions[name] = caption if isinstance(caption, str) else None
    return _Table(tables[0], captions)


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
