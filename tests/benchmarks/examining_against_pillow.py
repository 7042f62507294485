"""What the filter does with one record, as a ratio to Pillow's bare decode of the same JPEG.

    python -m tests.benchmarks.examining_against_pillow [--records 96]

`examine` checks the text, decodes strictly, measures, and makes hashes, thumbnail and sha256 of 512x384
JPEGs; the peer opens and decodes them. A third of the images are photo-like, a third have a plain sky, a
third are drawings on white: where no border can be ruled out at once, all of the image is looked at. CPU
seconds in rounds that take turns, medians.
"""

import argparse
import io
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from components.corpus.fragments import RawRecord
from components.corpus.images import ImageRules, open_reduced
from components.filtering.alt_text import AltTextRules, check_alt_text
from components.filtering.examine import Kept, examine
from components.filtering.signature import SHARP_SIDE, signature_of
from components.malloc import keep_freed_memory
from tests.taking_turns import median_seconds

WIDTH, HEIGHT = 512, 384
ROUNDS = 9
JUDGE_SIDE = 64  # as the demo's judge has it
TEXT = "A brown dog runs along a sandy beach at sunset"
KINDS = ("photo", "sky", "drawing")


def measure(records: int) -> dict[str, dict[str, float]]:
    """By kind of image: milliseconds of CPU time a record, of each step."""
    keep_freed_memory()  # as the stage's workers do
    return {kind: _of_kind(kind, records // len(KINDS)) for kind in KINDS}


def _of_kind(kind: str, count: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    data = [_jpeg(rng, kind) for _ in range(count)]
    texts, rules = AltTextRules(), ImageRules()
    opened = [open_reduced(image, rules, SHARP_SIDE).pixels for image in data]

    def examined(image: bytes) -> None:
        found = examine(RawRecord(image, TEXT, None), "0" * 32, texts, rules, judge_side=JUDGE_SIDE)
        assert isinstance(found, Kept)

    works: dict[str, Callable[[], object]] = {
        "Pillow": lambda: [_decode(image) for image in data],
        "examine": lambda: [examined(image) for image in data],
        "open_reduced": lambda: [open_reduced(image, rules, SHARP_SIDE) for image in data],
        "signature": lambda: [signature_of(image) for image in opened],
        "text rules": lambda: [check_alt_text(TEXT, texts) for _ in data],
    }
    return {name: 1000 * seconds / count for name, seconds in median_seconds(works, ROUNDS).items()}


def _decode(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def _jpeg(rng: np.random.Generator, kind: str) -> bytes:
    """Some 50 kB of a photo or a sky, less of a drawing."""
    size = (WIDTH, HEIGHT)
    colours = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(size)
    if kind == "drawing":
        image = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(image)
        for _ in range(20):
            corner = rng.integers(40, 300, 2)
            fill = tuple(rng.integers(0, 256, 3).tolist())
            draw.ellipse((*corner.tolist(), *(corner + rng.integers(10, 80, 2)).tolist()), fill=fill)
    else:
        grain = rng.normal(0, 6, (HEIGHT, WIDTH, 1))
        image = Image.fromarray((np.asarray(colours) + grain).clip(0, 255).astype(np.uint8))
        if kind == "sky":
            image.paste((120, 170, 230), (0, 0, WIDTH, HEIGHT // 3))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=96)
    for kind, costs in measure(parser.parse_args().records).items():
        parts = ", ".join(f"{name} {cost:.2f}" for name, cost in costs.items())
        sys.stdout.write(f"{kind:8} {costs['Pillow'] / costs['examine']:.2f} of Pillow's rate; ms: {parts}\n")


if __name__ == "__main__":
    main()
