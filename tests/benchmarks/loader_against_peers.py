"""How fast the loader is, as a ratio to others over the same JPEGs, decoded and resized by the same code.

    python -m tests.benchmarks.loader_against_peers [--side 64] [--size 32] [--samples 4000]

All read every sample, decode and resize it to (size, size, 3) and make batches of 32, in one process; the
loader also verifies each tar's hash and draws captions. "webdataset, as one writes it" decodes with Pillow
and without `draft`, as `.decode("pil")` does. mosaicml's streaming reads the samples out of its own shards;
it is no dependency of ours, and is left out where it cannot be imported. They take turns, so that a busy
machine slows all. From the cache is what training sees after the first epoch. The README quotes ratios,
never a rate.
"""

import argparse
import hashlib
import importlib.util
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import webdataset
from PIL import Image

from components.shards.blend import Blend
from components.shards.decode import decode_square
from components.shards.index import Shard, ShardIndex
from components.shards.loader import ShardLoader
from components.shards.writer import Sample, write_tar

BATCH = 32
ROUNDS = 5


def measure(side: int, size: int, samples: int) -> dict[str, float]:
    """Images per second of each, medians over the rounds, on this machine at this moment.

    side: of the stored JPEGs, pixels. size: side that all resize to. samples: in 8 tars.
    """
    with tempfile.TemporaryDirectory() as folder:
        index = write_shards(Path(folder), side, samples)
        warm = loader(index, size, cache_mb=4096)
        loaders: dict[str, Callable[[], Iterator[object]]] = {
            "webdataset, as one writes it": lambda: plain_batches(Path(folder), size),
            "webdataset": lambda: same_decode_batches(Path(folder), size),
            "streaming": lambda: loader(index, size, cache_mb=0).batches(),
            "cached": warm.batches,
        }
        if importlib.util.find_spec("streaming"):
            loaders["mosaicml"] = mosaicml_batches(Path(folder), size)
        images_a_second(warm.batches(), samples)
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(ROUNDS):
            for name, start in loaders.items():
                rates[name].append(images_a_second(start(), samples))
    return {name: median(values) for name, values in rates.items()}


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


def same_decode_batches(folder: Path, size: int) -> Iterator[object]:
    """webdataset with our decoding, which draws a JPEG at a fraction of its size."""
    urls = sorted(str(path) for path in folder.glob("*.tar"))
    samples = webdataset.WebDataset(urls, shardshuffle=False).shuffle(1000).to_tuple("jpg", "json")
    decoded = samples.map_tuple(
        lambda data: decode_square(data, size), lambda meta: json.loads(meta)["caption_long"]
    )
    return iter(decoded.batched(BATCH))


def mosaicml_batches(folder: Path, size: int) -> Callable[[], Iterator[object]]:
    """The tars' samples in shards of mosaicml's streaming, read and shuffled by it, decoded by our code."""
    from streaming import MDSWriter, StreamingDataset  # type: ignore[import-not-found]  # no dependency

    out = folder / "mds"
    with MDSWriter(out=str(out), columns={"jpg": "bytes", "caption": "str"}) as writer:
        for tar in sorted(folder.glob("*.tar")):
            for sample in webdataset.WebDataset(str(tar), shardshuffle=False):
                caption = json.loads(sample["json"])["caption_long"]
                writer.write({"jpg": sample["jpg"], "caption": caption})
    dataset = StreamingDataset(local=str(out), shuffle=True, batch_size=BATCH)

    def batches() -> Iterator[object]:
        images, captions = [], []
        for sample in dataset:
            images.append(decode_square(sample["jpg"], size))
            captions.append(sample["caption"])
            if len(images) == BATCH:
                yield np.stack(images), captions
                images, captions = [], []

    return batches


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
    for name, rate in rates.items():
        ratios = [
            f"{rate / rates[peer]:.2f} of {peer}" for peer in ("webdataset", "mosaicml") if peer in rates
        ]
        sys.stdout.write(f"{name}: {rate:,.0f} images/s, {', '.join(ratios)}\n")
    if "mosaicml" not in rates:
        sys.stdout.write("mosaicml's streaming is not installed here\n")


if __name__ == "__main__":
    main()
