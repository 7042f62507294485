"""What writing and reading the shards' tars costs, as ratios to plain Python over the same samples.

    python -m tests.benchmarks.tar_cost [--kilobytes 50] [--side 64] [--samples 500]

Written are images of so many kilobytes, beside `tarfile` alone with the JSON made ready; the bytes are
asserted to be those of webdataset's TarWriter. Read are PNGs, beside a parser that takes headers of 512 bytes
apart: as the loader does it when it streams, a tar is hashed and parsed and every image decoded and resized.
CPU seconds, medians of rounds that take turns, so that a busy machine does not show.

Reading goes through webdataset's iterators: parsing takes some 55 µs a sample more than the peer's, and a
training that caches its images pays for it in its first epoch only.
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import BinaryIO

import numpy as np
from PIL import Image
from webdataset import TarWriter

from components.shards.decode import decode_square
from components.shards.reader import parse_tar
from components.shards.writer import MODE, OWNER, Sample, encode_meta, write_tar

BLOCK = 512  # bytes
ROUNDS = 7


@dataclass(frozen=True)
class Costs:
    """CPU seconds for all samples."""

    write: float
    peer_write: float
    parse: float
    peer_parse: float
    stream: float  # hash, parse, decode
    peer_stream: float


def measure(side: int, samples: int, kilobytes: int = 50) -> Costs:
    """side: of the PNGs that are read, pixels. kilobytes: of an image that is written.

    Raises AssertionError where bytes or samples are not the peers'.
    """
    rng = np.random.default_rng(0)
    originals = [_sample(rng, side) for _ in range(samples)]
    large = [replace(sample, image=rng.bytes(kilobytes * 1000)) for sample in originals]
    metas = [encode_meta(sample.meta) for sample in large]
    data = _written(write_tar, originals)
    assert data == _written(webdataset_write, originals)
    assert parse_tar(data, "tar") == plain_parse(data)
    return Costs(
        *_cpu_seconds(
            lambda: _to_disk(lambda stream: write_tar(stream, large)),
            lambda: _to_disk(lambda stream: plain_write(stream, large, metas)),
            lambda: parse_tar(data, "tar"),
            lambda: plain_parse(data),
            lambda: _stream(data, lambda read: parse_tar(read, "tar")),
            lambda: _stream(data, plain_parse),
        )
    )


def webdataset_write(stream: BinaryIO, samples: list[Sample]) -> None:
    """The tar as webdataset writes it."""
    with TarWriter(stream, user=OWNER, group=OWNER, mode=MODE, mtime=0, encoder=False) as tar:
        for sample in samples:
            tar.write({"__key__": sample.key, sample.extension: sample.image})
            tar.write({"__key__": sample.key, "json": encode_meta(sample.meta)})


def plain_write(stream: BinaryIO, samples: list[Sample], metas: list[bytes]) -> None:
    """The same members as tarfile writes them, with nothing checked."""
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for sample, meta in zip(samples, metas, strict=True):
            for extension, content in ((sample.extension, sample.image), ("json", meta)):
                member = tarfile.TarInfo(f"{sample.key}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def plain_parse(data: bytes) -> list[Sample]:
    """The samples, from the headers that we write and nothing else."""
    members = _members(data)
    samples = []
    for key, extension, image in members:
        _, _, meta = next(members)
        samples.append(Sample(key, image, extension, json.loads(meta)))
    return samples


def _members(data: bytes) -> Iterator[tuple[str, str, bytes]]:
    at = 0
    while header := data[at : at + BLOCK].rstrip(b"\0"):
        key, _, extension = header[:100].rstrip(b"\0").decode("ascii").partition(".")
        size = int(header[124:136].rstrip(b"\0 "), 8)
        yield key, extension, data[at + BLOCK : at + BLOCK + size]
        at += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK


def _stream(data: bytes, parse: Callable[[bytes], list[Sample]]) -> None:
    hashlib.sha256(data).hexdigest()
    for sample in parse(data):
        decode_square(sample.image, 32)


def _written(write: Callable[[io.BytesIO, list[Sample]], object], samples: list[Sample]) -> bytes:
    stream = io.BytesIO()
    write(stream, samples)
    return stream.getvalue()


def _to_disk(write: Callable[[BinaryIO], object]) -> None:
    with tempfile.TemporaryFile() as stream:
        write(stream)


def _cpu_seconds(*works: Callable[[], object]) -> list[float]:
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, times in zip(works, seconds, strict=True):
            started = time.process_time()
            work()
            times.append(time.process_time() - started)
    return [median(times) for times in seconds]


def _sample(rng: np.random.Generator, side: int) -> Sample:
    """A small image with some detail, and a JSON of the size that the shard stage writes."""
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    stream = io.BytesIO()
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(stream, "PNG")
    meta = {
        "alt_text": "photo",
        "caption_short": "a photo",
        "caption_long": "a photo of many colours",
        "sha256": rng.bytes(32).hex(),
        "width": side,
        "height": side,
    }
    return Sample(rng.bytes(16).hex(), stream.getvalue(), "png", meta)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("side", 64), ("samples", 500), ("kilobytes", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = parser.parse_args()
    costs = measure(settings.side, settings.samples, settings.kilobytes)
    each = 1e6 / settings.samples
    for name, ours, peer in (
        ("write", costs.write, costs.peer_write),
        ("parse", costs.parse, costs.peer_parse),
        ("stream", costs.stream, costs.peer_stream),
    ):
        sys.stdout.write(
            f"{name:6} {ours * each:4.0f} µs a sample, {peer / ours:.2f} of plain Python's rate\n"
        )


if __name__ == "__main__":
    main()
