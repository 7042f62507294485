"""Small tars to load: `make_shards` writes them with their index, as the shard stage would."""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.conditioning.identity import FeatureIdentity
from components.shards.index import INDEX_NAME, Shard, ShardIndex
from components.shards.writer import Sample, image_extension, write_tar

SIDE = 12  # pixels of the test images
FORMATS = ("PNG", "JPEG", "WEBP")


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Path]:
    """make_shards([5, 3], name="a", split="train") -> the index.json of tars with 5 and 3 samples.

    buckets: the size, such as 16x8, of each tar. features_for: a sample's features; the index has
    `identities` (latents, texts) of them.
    """

    def make(
        counts: Sequence[int],
        *,
        name: str = "shards",
        split: str = "train",
        buckets: Sequence[str] = (),
        features_for: Callable[[Sample], dict[str, bytes]] = lambda _: {},
        **identities: FeatureIdentity,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shards = []
        for number, count in enumerate(counts):
            file = folder / f"{split}-{number:05d}.tar"
            with file.open("wb") as stream:
                samples = [make_sample(f"{name} {split} {number} {i}") for i in range(count)]
                write_tar(stream, [replace(s, features=features_for(s)) for s in samples])
            data = file.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            bucket = {"bucket": buckets[number]} if buckets else {}
            shards.append(
                Shard(name=file.name, split=split, bytes=len(data), sha256=sha256, samples=count, **bucket)
            )
        index = folder / INDEX_NAME
        index.write_text(ShardIndex(shards=tuple(shards), **identities).to_json())
        return index

    return make


def make_sample(name: str) -> Sample:
    """A sample that is a function of its name: pixels, format and the lengths of its captions."""
    digest = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    pixels = np.full((SIDE, SIDE, 3), rng.integers(0, 256, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, FORMATS[digest[0] % 3])
    meta = {
        "alt_text": f"alt {name}",
        "caption_short": f"short {name} " + "s" * int(rng.integers(0, 10)),
        "caption_long": f"long {name} " + "l" * int(rng.integers(10, 90)),
    }
    image = stream.getvalue()
    extension = image_extension(image)
    assert extension
    return Sample(digest.hex()[:32], image, extension, meta)
