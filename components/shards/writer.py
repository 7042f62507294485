"""Deterministic WebDataset tars: the same samples give the same bytes, everywhere and at any time.

They are those that webdataset's TarWriter makes, to the byte; what varies from run to run there (time, owner,
order) is fixed here. A sample is two members, `{key}.{jpg,png,webp}` (the image's own bytes) and `{key}.json`
(everything known about it), and then its features where they are precomputed (stored_features.py).
"""

import json
import math
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from components.errors import InputError

IMAGE_EXTENSIONS = ("jpg", "png", "webp")
META_EXTENSION = "json"
LATENT_EXTENSION, TEXT_EXTENSION = "latent.npy", "text.npz"  # in the order that they are written in
FEATURE_EXTENSIONS = (LATENT_EXTENSION, TEXT_EXTENSION)
OWNER = "straightshot"  # of every member, where a tar would name the user
MODE = 0o444
KEY = re.compile(r"[0-9a-f]{1,64}")  # hex: no dots (loaders split names at them), no paths


@dataclass(frozen=True)
class Sample:
    """One sample of a tar: its key, the encoded image, the image's extension, its JSON, and its features.

    features: FEATURE_EXTENSIONS -> the file's bytes, where there is one.
    """

    key: str
    image: bytes
    extension: str
    meta: Mapping[str, Any]
    features: Mapping[str, bytes] = field(default_factory=dict)


def write_tar(stream: BinaryIO, samples: Iterable[Sample]) -> int:
    """Write the samples, in the order given, as one tar; returns how many.

    Raises InputError for a key that is not hex or comes twice, and for an extension that we do not write.
    """
    seen: set[str] = set()
    size = 0
    for sample in samples:
        _check(sample, seen)
        size += _add(stream, f"{sample.key}.{sample.extension}", sample.image)
        size += _add(stream, f"{sample.key}.{META_EXTENSION}", encode_meta(sample.meta))
        for extension in sorted(sample.features):
            size += _add(stream, f"{sample.key}.{extension}", sample.features[extension])
    end = 2 * tarfile.BLOCKSIZE
    stream.write(bytes(end + -(size + end) % tarfile.RECORDSIZE))
    return len(seen)


def _add(stream: BinaryIO, name: str, content: bytes) -> int:
    """Write one member; returns its bytes. `TarFile.addfile` would copy the content in pieces of 16 kB."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.uname, member.gname = len(content), MODE, OWNER, OWNER
    header, padding = member.tobuf(tarfile.USTAR_FORMAT), bytes(-len(content) % tarfile.BLOCKSIZE)
    for piece in (header, content, padding):
        stream.write(piece)
    return len(header) + len(content) + len(padding)


def encode_meta(meta: Mapping[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8; NaN, which JSON lacks, becomes null."""
    values = {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in meta.items()
    }
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def image_extension(image: bytes) -> str | None:
    """`jpg`, `png` or `webp` by the first bytes; None for anything else."""
    if image.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    return None


def _check(sample: Sample, seen: set[str]) -> None:
    if not KEY.fullmatch(sample.key):
        raise InputError(f"sample key {sample.key!r} is not lower-case hex; derive it with record_key")
    if sample.key in seen:
        raise InputError(f"sample {sample.key} comes twice in one tar; keys must be unique")
    if sample.extension not in IMAGE_EXTENSIONS:
        raise InputError(f"sample {sample.key}: extension {sample.extension!r} is none of {IMAGE_EXTENSIONS}")
    if unknown := sample.features.keys() - set(FEATURE_EXTENSIONS):
        raise InputError(f"sample {sample.key}: '{min(unknown)}' is none of {FEATURE_EXTENSIONS}")
    seen.add(sample.key)
