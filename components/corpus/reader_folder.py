"""Folder corpora: image files with a `.txt` beside each, or one CSV or JSONL table of captions in it."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from upath import UPath

from components.corpus.corpus_files import folder_files
from components.corpus.fragments import FolderMember, Fragment, FragmentSize, RawRecord, cut_records
from components.errors import InputError

# Every file with an image suffix is a record; formats we do not decode are the filter's to reject.
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".svg")
TABLES = (".csv", ".jsonl")
FILE_COLUMNS = ("file_name", "image_path", "image", "file")
TEXT_COLUMNS = ("alt_text", "caption", "text")


def plan(path: str, limit: FragmentSize) -> tuple[list[Fragment], list[tuple[str, str]]]:
    """Fragments over the folder's images by name, and over what its table names besides."""
    root, names = folder_files(path)
    captions, table = _captions(root, names)
    images = [name for name in names if name.lower().endswith(IMAGES)]
    absent = sorted(set(captions) - set(images))
    present = set(names)
    members = [_member(name, present, captions) for name in images]
    members += [FolderMember(None, None, captions[name], name) for name in absent]
    sizes = [_size(UPath(root), member.image) for member in members]
    fragments = [
        Fragment(index, "folder", root, start, stop, stream=index, members=tuple(members[start:stop]))
        for index, (start, stop) in enumerate(cut_records(sizes, limit))
    ]
    used = [*images, *(member.sidecar for member in members if member.sidecar), *([table] if table else [])]
    return fragments, [(name, str(UPath(root) / name)) for name in sorted(used)]


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
    sidecar = str(PurePosixPath(name).with_suffix(".txt"))
    if name in captions or sidecar not in names:
        return FolderMember(name, None, captions.get(name), name)
    return FolderMember(name, sidecar, None, name)


def _captions(root: str, names: list[str]) -> tuple[dict[str, str | None], str | None]:
    """Captions by image name from the folder's one table (an image's first row wins), and its name."""
    tables = [name for name in names if "/" not in name and name.lower().endswith(TABLES)]
    if not tables:
        return {}, None
    if len(tables) > 1:
        raise InputError(f"{root} has several caption tables ({', '.join(tables)}); leave one")
    where = str(UPath(root) / tables[0])
    text = UPath(where).read_bytes().decode("utf-8-sig", "replace")
    parse = _json_rows if where.lower().endswith(".jsonl") else _csv_rows
    rows = list(parse(text, where))
    if not rows:
        return {}, tables[0]
    columns = list(dict.fromkeys(str(column) for row in rows for column in row))
    file_column = _column(FILE_COLUMNS, columns, where)
    text_column = _column(TEXT_COLUMNS, columns, where)
    captions: dict[str, str | None] = {}
    for row in rows:
        name, caption = row.get(file_column), row.get(text_column)
        if isinstance(name, str) and name:
            captions.setdefault(str(PurePosixPath(name)), caption if isinstance(caption, str) else None)
    return captions, tables[0]


def _json_rows(text: str, where: str) -> Iterator[dict[str, Any]]:
    """A line that is no JSON object costs its image the caption; only when all are is the table at fault."""
    lines = [line for line in text.split("\n") if line.strip()]
    parsed = 0
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            parsed += 1
            yield row
    if lines and not parsed:
        raise InputError(f"{where}: no line is a JSON object; write one object a line")


def _csv_rows(text: str, where: str) -> Iterator[dict[str, Any]]:
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
