"""Folder corpora: image files with a `.txt` and a `.json` beside each, or tables of them (caption_tables.py).

A text is the table's, else the .txt's, else the JSON's; a licence and a source are the table's, else the
JSON's (side_files.py). Every file, and every row of a table, is a record, a part of one, or counted as
skipped.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from upath import UPath

from components.corpus.caption_tables import TableRow, read_tables
from components.corpus.corpus_files import IMAGE_EXTENSIONS, folder_files
from components.corpus.fragments import FolderMember, Fragment, FragmentSize, Plan, RawRecord, cut_records
from components.corpus.side_files import DAMAGED_JSON, fields_of, provenance, text_of

IMAGES = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
TEXT, FIELDS = ".txt", ".json"  # of files beside an image


def plan(path: str, limit: FragmentSize) -> Plan:
    """Fragments over the folder's images by name, and over what its tables name besides."""
    skipped = Counter[str]()
    root, names = folder_files(path, skipped)
    tables = read_tables(root, names, skipped)
    present = set(names)
    images = [name for name in names if name.lower().endswith(IMAGES) or name in tables.rows]
    absent = sorted(set(tables.rows) - present)
    members = [_member(name, present, tables.rows.get(name)) for name in images]
    members += [
        FolderMember(None, None, tables.rows[name].alt_text, name, None, **tables.rows[name].provenance)
        for name in absent
    ]
    sizes = [_size(UPath(root), member.image) for member in members]
    fragments = [
        Fragment(index, "folder", root, start, stop, stream=index, members=tuple(members[start:stop]))
        for index, (start, stop) in enumerate(cut_records(sizes, limit))
    ]
    beside = {name for member in members for name in (member.sidecar, member.fields) if name}
    used = {*images, *beside, *tables.names}
    for name in sorted(present - used):
        kind = "text without an image of its own" if name.endswith(TEXT) else "file that is no image"
        skipped[kind] += 1
    return Plan(fragments, [(name, str(UPath(root) / name)) for name in sorted(used)], dict(+skipped))


def read(fragment: Fragment) -> Iterator[RawRecord]:
    root = UPath(fragment.path)
    for member in fragment.members:
        text, sidecar = member.alt_text, _bytes_or_none(root, member.sidecar)
        if sidecar is not None:
            text = sidecar.decode("utf-8-sig", "replace")
        stated: dict[str, Any] = {}
        if member.fields:
            fields = fields_of(_bytes_or_none(root, member.fields) or b"")
            stated = {"damaged": DAMAGED_JSON} if fields is None else provenance(fields)
            text = text_of(fields or {}) if text is None else text
        stated |= {name: value for name in ("license", "source") if (value := getattr(member, name))}
        yield RawRecord(_bytes_or_none(root, member.image), text, member.url, **stated)


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


def _member(name: str, names: set[str], row: TableRow | None) -> FolderMember:
    """An image, what its table says of it, and the files beside it."""
    path = PurePosixPath(name)
    text, fields = (
        beside if (beside := str(path.with_suffix(suffix))) in names and beside != name else None
        for suffix in (TEXT, FIELDS)
    )
    if row is None:
        return FolderMember(name, text, None, name, fields)
    return FolderMember(name, None if row.has_text else text, row.alt_text, name, fields, **row.provenance)
