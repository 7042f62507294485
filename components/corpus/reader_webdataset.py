"""WebDataset corpora in img2dataset's layout: tars of `key.jpg|png|webp` with `key.txt` and `key.json`.

Read with tarfile rather than through a WebDataset pipeline, which accepts many truncated tars in silence.
"""

import json
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from upath import UPath

from components.corpus.corpus_files import find_files
from components.corpus.fragments import Fragment, RawRecord, cut

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
_DAMAGE = (tarfile.TarError, EOFError, zlib.error)

Sample = dict[str, tarfile.TarInfo]  # extension -> member


def plan(path: str, rows_per_fragment: int) -> tuple[list[Fragment], list[tuple[str, str]]]:
    """Fragments of every tar in order of name. Walks each tar's headers, so that a cut one is found here."""
    fragments: list[Fragment] = []
    files = find_files(path, (".tar", ".tar.gz", ".tgz"))
    for _, file_path in files:
        with _opened(file_path) as tar:
            total = sum(1 for _ in _samples(tar))
        for start, stop in cut(total, rows_per_fragment):
            fragments.append(Fragment(len(fragments), "webdataset", file_path, start, stop))
    return fragments, files


def read(fragment: Fragment) -> Iterator[RawRecord]:
    name = PurePosixPath(fragment.path).name
    with _opened(fragment.path) as tar:
        for index, (key, sample) in enumerate(_samples(tar)):
            if index >= fragment.stop:
                return
            if index >= fragment.start:
                yield _record(tar, f"{name}/{key}", sample)


def _record(tar: tarfile.TarFile, place: str, sample: Sample) -> RawRecord:
    """The text is the .txt's, else the JSON's caption; the url the JSON's, else the place in the corpus."""
    image = next((_bytes(tar, sample[kind]) for kind in IMAGES if kind in sample), None)
    meta: Any = None
    if "json" in sample:
        try:
            meta = json.loads(_bytes(tar, sample["json"]))
        except ValueError:
            meta = None  # a spoiled side file costs the record its url, not its picture
    meta = meta if isinstance(meta, dict) else {}
    text: Any = meta.get("caption", meta.get("alt_text"))
    if "txt" in sample:
        text = _bytes(tar, sample["txt"]).decode("utf-8", "replace")
    url = meta.get("url")
    return RawRecord(image, text if isinstance(text, str) else None, url if isinstance(url, str) else place)


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, Sample]]:
    """Neighbouring members of one key, up to the first dot of the name. A repeated extension begins anew."""
    key, sample = "", Sample()
    for member in tar:
        folder, _, name = member.name.rpartition("/")
        stem, dot, extension = name.partition(".")
        if not member.isfile() or not dot or not stem:
            continue
        extension = extension.lower()
        whole = f"{folder}/{stem}" if folder else stem
        if sample and (whole != key or extension in sample):
            yield key, sample
            sample = Sample()
        key = whole
        sample[extension] = member
    if sample:
        yield key, sample
    # tarfile takes any header that it cannot read for the end; the true end is a block of zeros.
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it has no end mark after {len(tar.getmembers())} members")


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None  # only regular files are kept
    return stream.read()


@contextmanager
def _opened(path: str) -> Iterator[tarfile.TarFile]:
    """The tar, with every way in which it may be damaged told as one line."""
    with UPath(path).open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:*") as tar:
                yield tar
        except _DAMAGE as error:
            what = " ".join(str(error).split())
            raise ValueError(f"{path} is no whole tar: {what}; fetch it again or remove it") from error
