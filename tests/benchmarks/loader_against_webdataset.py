"""How fast the loader is, as a ratio to plain `webdataset` decoding and resizing the same tars with Pillow.

    python -m tests.benchmarks.loader_against_webdataset [--side 64] [--size 32] [--samples 4000]

Both read, decode and resize every sample to (size, size, 3) and make batches of 32; the loader also verifies
each tar's hash and draws captions. The two take turns, so that a busy machine slows both. Expect a ratio
near 1 when streaming small images, above 1 for large JPEGs (they decode at a fraction), and far above 1 from
the cache, which is what training sees after the first epoch. The README quotes the ratios, never a rate.
"""

import argparse
import hashlib
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import webdataset
from PIL import Image

from components.shards.blend import Blend
from components.shards.index import Shard, ShardIndex
from components.shards.loader import ShardLoader
from components.shards.writer import Sample, write_tar

BATCH = 32
ROUNDS = 5


@dataclass(frozen=True)
class Rates:
    """Images per second, medians over the rounds, on this machine at this moment."""

    webdataset: float
    streaming: float
    cached: float


def measure(side: int, size: int, samples: int) -> Rates:
    """side: of the stored JPEGs, pixels. size: side that both resize to. samples: in 8 tars."""
    with tempfile.TemporaryDirectory() as folder:
        index = write_shards(Path(folder), side, samples)
        warm = loader(index, size, cache_mb=4096)
        loaders = {
            "webdataset": lambda: plain_batches(Path(folder), size),
            "streaming": lambda: loader(index, size, cache_mb=0).batches(),
            "cached": warm.batches,
        }
        images_a_second(warm.batches(), samples)
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(ROUNDS):
            for name, start in loaders.items():
                rates[name].append(images_a_second(start(), samples))
    return Rates(**{name: median(values) for name, values in rates.items()})


def loader(index: Path, size: int, *, cache_mb: int) -> ShardLoader:
    return ShardLoader([index], batch_size=BATCH, image_size=size, seed=0, blend=Blend(), cache_mb=cache_mb)


def plain_batches(folder: Path, size: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    """What one writes with webdataset alone: decode, resize, batch."""

    def resize(image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))

    urls = sorted(str(path) for path in folder.glob("*.tar"))
    samples = (
        webdataset.WebDataset(urls, shardshuffle=False).shuffle(1000).decode("pil").to_tuple("jpg", "json")
    )
    return iter(samples.map_tuple(resize, lambda meta: meta["caption_long"]).batched(BATCH))


def images_a_second(batches: Iterator[object], samples: int) -> float:
    started = time.perf_counter()
    for _ in range(samples // BATCH):
        next(batches)
    return samples // BATCH * BATCH / (time.perf_counter() - started)


def write_shards(folder: Path, side: int, samples: int) -> Path:
    """8 tars of JPEGs with some detail in them."""
    rng = np.random.default_rng(0)
    shards = []
    for number in range(8):
        file = folder / f"train-{number:05d}.tar"
        with file.open("wb") as stream:
            write_tar(stream, [photo(rng, side) for _ in range(samples // 8)])
        data = file.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        shard = Shard(name=file.name, split="train", bytes=len(data), sha256=sha256, samples=samples // 8)
        shards.append(shard)
    (folder / "index.json").write_text(ShardIndex(shards=tuple(shards)).to_json())
    return folder / "index.json"


def photo(rng: np.random.Generator, side: int) -> Sample:
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    stream = io.BytesIO()
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    meta = {"alt_text": "photo", "caption_short": "a photo", "caption_long": "a photo of many colours"}
    return Sample(rng.bytes(16).hex(), stream.getvalue(), "jpg", meta)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("side", 64), ("size", 32), ("samples", 4000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    rates = measure(options.side, options.size, options.samples)
    sys.stdout.write(
        f"webdataset {rates.webdataset:,.0f} images/s\n"
        f"streaming  {rates.streaming:,.0f} images/s, ratio {rates.streaming / rates.webdataset:.2f}\n"
        f"cached     {rates.cached:,.0f} images/s, ratio {rates.cached / rates.webdataset:.1f}\n"
    )


if __name__ == "__main__":
    main()
