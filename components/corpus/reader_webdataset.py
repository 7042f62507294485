"""WebDataset corpora in img2dataset's layout: tars of `key.jpg|png|webp` with `key.txt` and `key.json`.

Read with tarfile rather than through a WebDataset pipeline, which accepts many truncated tars in silence.
"""

import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar

from upath import UPath

from components.corpus.corpus_files import find_files
from components.corpus.fragments import Fragment, FragmentSize, RawRecord, cut_records
from components.errors import InputError, one_line

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
_DAMAGE = (tarfile.TarError, EOFError, zlib.error)

T = TypeVar("T")


def plan(path: str, limit: FragmentSize) -> tuple[list[Fragment], list[tuple[str, str]]]:
    """Fragments of every tar in order of name. Walks each tar's headers, so that a cut one is found here.

    A compressed tar is one stream; of a plain one, each fragment is read from where it begins.
    """
    fragments: list[Fragment] = []
    files = find_files(path, (".tar", ".tar.gz", ".tgz"))
    stream = 0
    for _, file_path in files:
        with _opened(file_path) as (tar, plain):
            samples = [list(members.values()) for _, members in _samples(tar, lambda member: member)]
        sizes = [sum(member.size for member in members) for members in samples]
        for start, stop in cut_records(sizes, limit):
            offset = min(member.offset for member in samples[start]) if plain else 0
            index = len(fragments)
            fragments.append(Fragment(index, "webdataset", file_path, start, stop, stream, offset))
            stream += plain
        stream += not plain
    return fragments, files


def read(fragment: Fragment) -> Iterator[RawRecord]:
    name = PurePosixPath(fragment.path).name
    with _opened(fragment.path, fragment.offset) as (tar, plain):
        first = fragment.start if plain else 0  # the number of the sample that lies at the offset
        # Contents are read as the members come: going back in a compressed tar would begin it anew.
        samples = _samples(tar, partial(_content, tar))
        for index, (key, contents) in enumerate(samples, start=first):
            if index >= fragment.stop:
                return
            if index >= fragment.start:
                yield _record(f"{name}/{key}", contents)


def _record(place: str, contents: dict[str, bytes]) -> RawRecord:
    """The text is the .txt's, else the JSON's caption; the url the JSON's, else the place in the corpus."""
    image = next((contents[extension] for extension in IMAGES if extension in contents), None)
    meta: Any = None
    if "json" in contents:
        try:
            meta = json.loads(contents["json"])
        except ValueError:
            meta = None  # a spoiled side file costs the record its url, not its image
    meta = meta if isinstance(meta, dict) else {}
    text: Any = meta.get("caption", meta.get("alt_text"))
    if "txt" in contents:
        text = contents["txt"].decode("utf-8", "replace")
    url = meta.get("url")
    return RawRecord(image, text if isinstance(text, str) else None, url if isinstance(url, str) else place)


def _samples(
    tar: tarfile.TarFile, take: Callable[[tarfile.TarInfo], T]
) -> Iterator[tuple[str, dict[str, T]]]:
    """Neighbouring members of one key, up to the first dot of the name, each with what `take` makes of it.

    A repeated extension begins a new sample.
    """
    key, sample = "", dict[str, T]()
    for member in tar:
        folder, _, name = member.name.rpartition("/")
        stem, dot, extension = name.partition(".")
        if not member.isfile() or not dot or not stem:
            continue
        extension = extension.lower()
        whole = f"{folder}/{stem}" if folder else stem
        if sample and (whole != key or extension in sample):
            yield key, sample
            sample = {}
        key = whole
        sample[extension] = take(member)
    if sample:
        yield key, sample
    # tarfile takes any header that it cannot read for the end; the true end is a block of zeros.
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it has no end mark after {len(tar.getmembers())} members")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None  # only regular files are kept
    return stream.read()


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
