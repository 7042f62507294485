"""Verified reading: a tar's samples, after its bytes were found to be exactly those of the index.

The bytes that are hashed are the bytes that are parsed, so nothing can change in between. webdataset's tar
iterators parse them; what these skip in silence (members without an extension, links, a torn end) is refused
here, and nothing is decoded but the JSON. tests/benchmarks/tar_cost.py says what that costs.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

from upath import UPath

from components.errors import InputError
from components.shards.index import Location, Shard, Split, check_size, load_index
from components.shards.writer import FEATURE_EXTENSIONS, IMAGE_EXTENSIONS, KEY, META_EXTENSION, Sample

BLOCK = 512  # bytes of a tar header, and what members are padded to
MAGIC = slice(257, 262)  # where a header says "ustar": a compressed tar has something else there


def read_split(index_path: Location, split: Split) -> Iterator[Sample]:
    """Every sample of a split, in index order; each tar is verified before its first sample."""
    folder = UPath(index_path).parent
    for shard in load_index(index_path).split(split):
        yield from read_tar(folder / shard.name, shard)


def read_tar(path: Location, shard: Shard) -> list[Sample]:
    """All samples of one tar. Raises InputError, one line naming the tar, if a single bit differs."""
    data = _read(path)
    check_size(path, shard, len(data))
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise InputError(f"{path}: damaged: its sha256 is not the index's; run the shard stage again")
    samples = parse_tar(data, str(path))
    if len(samples) != shard.samples:
        raise InputError(f"{path}: {len(samples)} samples, the index lists {shard.samples}")
    return samples


def parse_tar(data: bytes, where: str) -> list[Sample]:
    """The samples of a tar that write_tar wrote. Raises InputError for anything that it would not write."""
    samples: dict[str, Sample] = {}
    parsed = 0  # bytes of the tar that lie in the samples
    for members in _grouped(data, where):
        key = str(members["__key__"])
        if not KEY.fullmatch(key):
            raise InputError(f"{where}: sample {key!r} is none that we write: its key is not lower-case hex")
        contents = {name: content for name, content in members.items() if not name.startswith("__")}
        meta = contents.pop(META_EXTENSION, None)
        features = {name: contents.pop(name) for name in FEATURE_EXTENSIONS if name in contents}
        if meta is None or len(contents) != 1 or not contents.keys() <= set(IMAGE_EXTENSIONS):
            raise InputError(f"{where}: sample {key} is not an image and its JSON; it is not a tar of ours")
        if key in samples:
            raise InputError(f"{where}: sample {key} comes twice")
        ((extension, image),) = contents.items()
        samples[key] = Sample(key, image, extension, _parse_meta(meta, where, key), features)
        parsed += sum(map(_size_in_tar, (image, meta, *features.values())))
    if data[parsed:].strip(b"\0"):
        raise InputError(f"{where}: there is more in it than samples; it is not a tar of ours")
    return list(samples.values())


def _grouped(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    """webdataset's samples: `__key__`, `__url__`, and the bytes of each member by its extension."""
    from webdataset.tariterators import group_by_keys, tar_file_expander  # not above: it imports torch

    if data[MAGIC] != b"ustar":
        if data.strip(b"\0"):
            raise InputError(f"{where}: it does not begin with a tar header; it is not a tar of ours")
        return
    files = tar_file_expander([{"url": where, "stream": io.BytesIO(data)}])
    try:
        yield from group_by_keys(files)
    except tarfile.TarError as error:
        raise InputError(f"{where}: no tar header where one is due; it is not a tar of ours") from error
    except ValueError as error:  # what group_by_keys raises for an extension that comes again
        raise InputError(f"{where}: a sample comes twice; it is not a tar of ours") from error


def _size_in_tar(content: bytes) -> int:
    """Bytes of a member: its header, and its content up to a whole block."""
    return BLOCK + (len(content) + BLOCK - 1) // BLOCK * BLOCK


def _parse_meta(meta: bytes, where: str, key: str) -> dict[str, object]:
    try:
        parsed = json.loads(meta)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise InputError(f"{where}: the JSON of sample {key} is not an object")
    return parsed


def _read(path: Location) -> bytes:
    try:
        return UPath(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: this tar of the index is missing; run the shard stage again") from None
