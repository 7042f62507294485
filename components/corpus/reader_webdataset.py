"""WebDataset corpora in img2dataset's layout: tars of `key.jpg|png|webp` with `key.txt` and `key.json`.

Of the JSON: `url`, `caption` or `alt_text` where there is no .txt, licence and source (side_files.py).

Read with tarfile rather than through a WebDataset pipeline, which accepts many truncated tars in silence.
"""

import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Generic, TypeVar

from upath import UPath

from components.corpus.corpus_files import IMAGE_EXTENSIONS, find_files
from components.corpus.fragments import Fragment, FragmentSize, Plan, RawRecord, cut_records
from components.corpus.side_files import DAMAGED_JSON, fields_of, provenance, text_of
from components.errors import InputError, one_line

EXTENSIONS = frozenset((*IMAGE_EXTENSIONS, "txt", "json"))
MOST_IN_GROUP = 64  # members that are held in memory together
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError)

T = TypeVar("T")


@dataclass(frozen=True)
class _Sample(Generic[T]):
    """The members of one key, by extension, as what was taken of each."""

    key: str
    members: dict[str, T] = field(default_factory=dict)


def plan(path: str, limit: FragmentSize) -> Plan:
    """Fragments of every tar in order of name. Walks each tar's headers, so that a cut one is found here.

    A compressed tar is one stream; of a plain one, each fragment is read from where it begins.
    """
    fragments: list[Fragment] = []
    skipped = Counter[str]()
    files = find_files(path, (".tar", ".tar.gz", ".tgz"))
    stream = 0
    for _, file_path in files:
        sizes: list[int] = []
        places: list[tuple[int, int]] = []  # of each sample: where its group begins, in bytes and samples
        with _opened(file_path) as (tar, plain):
            for group in _groups(tar, lambda member: member, skipped):
                begins = min(member.offset for sample in group for member in sample.members.values())
                places += [(begins, len(sizes)) if plain else (0, 0)] * len(group)
                sizes += [sum(member.size for member in sample.members.values()) for sample in group]
        for start, stop in cut_records(sizes, limit):
            index = len(fragments)
            fragments.append(Fragment(index, "webdataset", file_path, start, stop, stream, *places[start]))
            stream += plain
        stream += not plain
    return Plan(fragments, files, dict(skipped))


def read(fragment: Fragment) -> Iterator[RawRecord]:
    name = PurePosixPath(fragment.path).name
    with _opened(fragment.path, fragment.offset) as (tar, _):

        def content(member: tarfile.TarInfo) -> bytes:
            """Read as the members come: going back in a compressed tar would begin it anew."""
            stream = tar.extractfile(member) if member.isreg() else None  # a link is a record without bytes
            return stream.read() if stream else b""

        index = fragment.first
        for group in _groups(tar, content, Counter()):
            for sample in group:
                if index >= fragment.stop:
                    return
                if index >= fragment.start:
                    yield _record(f"{name}/{sample.key}", sample.members)
                index += 1


def _record(place: str, contents: dict[str, bytes]) -> RawRecord:
    """The text is the .txt's, else the JSON's; the url the JSON's, else the place in the corpus.

    A spoiled JSON costs the record what it says, not its image.
    """
    image = next((contents[extension] for extension in IMAGE_EXTENSIONS if extension in contents), None)
    fields = fields_of(contents["json"]) if "json" in contents else {}
    damaged = DAMAGED_JSON if fields is None else None
    fields = fields or {}
    text = contents["txt"].decode("utf-8", "replace") if "txt" in contents else text_of(fields)
    url = fields.get("url") if isinstance(fields.get("url"), str) else place
    return RawRecord(image, text, url, **provenance(fields), damaged=damaged)


def _groups(
    tar: tarfile.TarFile, take: Callable[[tarfile.TarInfo], T], skipped: Counter[str]
) -> Iterator[list[_Sample[T]]]:
    """The samples in order of their first members, each member as what `take` makes of it.

    Neighbouring members of one key are a sample; a repeated extension begins a new one. Members of
    `key.more` may lie between those of `key` (`key.jpg`, `key.mask.png`, `key.txt`): such samples make a
    group, which can be read from where it begins.
    """
    group: list[_Sample[T]] = []
    members = 0
    for member in _members(tar):
        key, extension = _split(member.name)
        if extension not in EXTENSIONS:
            skipped["file in a tar that is no part of a sample"] += 1
            continue
        if group and (members == MOST_IN_GROUP or not f"{key}.".startswith(f"{group[0].key}.")):
            yield group
            group, members = [], 0
        sample = next((sample for sample in reversed(group) if sample.key == key), None)
        if sample is None or extension in sample.members:
            sample = _Sample(key)
            group.append(sample)
        sample.members[extension] = take(member)
        members += 1
    if group:
        yield group


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """All but the folders, up to a true end of the tar. Raises ReadError where there is none."""
    count = 0
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them
        count += 1
        if not member.isdir():
            yield member
    # tarfile takes any header that it cannot read for the end; the true end is a block of zeros.
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it has no end mark after {count} members")


def _split(name: str) -> tuple[str, str]:
    """The key, up to the last dot of the file's name, and the extension; none for a hidden file.

    WebDataset cuts at the first dot, which would make one sample of `1.5.jpg` and `1.6.jpg`.
    """
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.rpartition(".")
    return (name, "") if not stem or stem.startswith(".") else (folder + slash + stem, extension.lower())


@contextmanager
def _opened(path: str, offset: int = 0) -> Iterator[tuple[tarfile.TarFile, bool]]:
    """The tar from the member at `offset` on, and whether it is a plain one, not compressed.

    Every way in which it may be damaged is an InputError of one line.
    """
    with UPath(path).open("rb") as file:
        try:
            file.seek(offset)
            with tarfile.open(fileobj=file, mode="r:" if offset else "r:*") as tar:
                yield tar, tar.fileobj is file
        except _DAMAGE as error:
            raise InputError(
                f"{path} is no whole tar: {one_line(error)}; fetch it again or remove it"
            ) from error
