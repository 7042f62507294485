"""Verified reading: a tar's samples, after its bytes were found to be exactly those of the index.

The bytes that are hashed are the bytes that are parsed, so nothing can change in between.
"""

import hashlib
import json
from collections.abc import Iterator

from upath import UPath

from components.shards.index import Location, Shard, Split, check_size, load_index
from components.shards.writer import IMAGE_EXTENSIONS, KEY, META_EXTENSION, Sample

BLOCK = 512  # bytes of a tar header, and what members are padded to
REGULAR = b"0"  # the type flag of a plain file


def read_split(index_path: Location, split: Split) -> Iterator[Sample]:
    """Every sample of a split, in index order; each tar is verified before its first sample."""
    folder = UPath(index_path).parent
    for shard in load_index(index_path).split(split):
        yield from read_tar(folder / shard.name, shard)


def read_tar(path: Location, shard: Shard) -> list[Sample]:
    """All samples of one tar. Raises ValueError, one line naming the tar, if a single bit differs."""
    data = _read(path)
    check_size(path, shard, len(data))
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise ValueError(f"{path}: damaged: its sha256 is not the index's; run the shard stage again")
    samples = parse_tar(data, str(path))
    if len(samples) != shard.samples:
        raise ValueError(f"{path}: {len(samples)} samples, the index lists {shard.samples}")
    return samples


def parse_tar(data: bytes, where: str) -> list[Sample]:
    """The samples of a tar that write_tar wrote. Raises ValueError at the first thing it would not write."""
    samples: list[Sample] = []
    members = _members(data, where)
    seen: set[str] = set()
    for key, extension, image in members:
        meta_key, meta_extension, meta = next(members, ("", "", b""))
        if extension not in IMAGE_EXTENSIONS or (meta_key, meta_extension) != (key, META_EXTENSION):
            raise ValueError(f"{where}: sample {key} is not an image and its JSON; it is not a tar of ours")
        if key in seen:
            raise ValueError(f"{where}: sample {key} comes twice")
        seen.add(key)
        samples.append(Sample(key, image, extension, _parse_meta(meta, where, key)))
    return samples


def _members(data: bytes, where: str) -> Iterator[tuple[str, str, bytes]]:
    """(key, extension, content) of each member, until the zero block that ends a tar."""
    at = 0
    while header := data[at : at + BLOCK].rstrip(b"\0"):
        name = header[:100].rstrip(b"\0").decode("ascii", "replace")
        key, _, extension = name.partition(".")
        try:
            size = int(header[124:136].rstrip(b"\0 "), 8)
        except ValueError:
            raise ValueError(f"{where}: no tar header at byte {at}; it is not a tar of ours") from None
        if header[156:157] != REGULAR or not KEY.fullmatch(key) or at + BLOCK + size > len(data):
            raise ValueError(f"{where}: member {name!r} at byte {at} is none that we write")
        yield key, extension, data[at + BLOCK : at + BLOCK + size]
        at += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK


def _parse_meta(meta: bytes, where: str, key: str) -> dict[str, object]:
    try:
        parsed = json.loads(meta)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError(f"{where}: the JSON of sample {key} is not an object")
    return parsed


def _read(path: Location) -> bytes:
    try:
        return UPath(path).read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: this tar of the index is missing; run the shard stage again") from None
