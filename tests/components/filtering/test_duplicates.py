"""Duplicates: recognised over re-encodings, not seen between images that differ; first in order wins."""

import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from components.corpus.images import ImageRejected, ImageRules, open_image
from components.filtering.duplicates import (
    HASH_DIGITS,
    Duplicate,
    DuplicateRules,
    Hashed,
    find_duplicates,
    perceptual_hash,
)

RULES = DuplicateRules()


def hashed(phash: str, sha256: str) -> Hashed:
    return Hashed(sha256, phash)


def drawing(colour: str, shape: str = "ellipse", at: int = 20, background: str = "white") -> Image.Image:
    image = Image.new("RGB", (384, 384), background)
    getattr(ImageDraw.Draw(image), shape)([4 * edge for edge in (at, at, at + 40, at + 40)], fill=colour)
    return image.resize((96, 96), Image.Resampling.LANCZOS)


def encoded_again(image: Image.Image, kind: str, **options) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(buffer).convert("RGB")


def near(one: Image.Image, other: Image.Image, rules: DuplicateRules = RULES) -> bool:
    rows = [hashed(perceptual_hash(one), "a"), hashed(perceptual_hash(other), "b")]
    return 1 in find_duplicates(rows, rules)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("quality", [75, 85, 95])
@pytest.mark.parametrize("side", [64, 96, 128])
def test_an_image_encoded_again_is_near(kind, quality, side):
    image = drawing("firebrick", background="beige")
    resized = image.resize((side, side), Image.Resampling.LANCZOS)
    assert near(image, encoded_again(resized, kind, quality=quality))


def test_another_colour_shape_place_or_background_is_not_near():
    image = drawing("red")
    for other in (
        drawing("blue"),
        drawing("orange"),
        drawing("red", "rectangle"),
        drawing("red", at=26),
        drawing("red", background="grey"),
    ):
        assert not near(image, other)


def test_pages_of_print_that_are_equally_grey_are_not_near():
    rng = np.random.default_rng(0)
    pages = [
        Image.fromarray((rng.random((512, 512)) > 0.5).astype(np.uint8) * 255).convert("RGB")
        for _ in range(2)
    ]
    assert not near(*pages)


def test_the_first_in_order_wins_and_copies_of_copies_name_it():
    red, again, blue = (perceptual_hash(drawing(colour)) for colour in ("red", "#fd0200", "blue"))
    rows = [hashed(red, "1"), hashed(blue, "2"), hashed(again, "3"), hashed(red, "1"), hashed(again, "3")]
    assert find_duplicates(rows, RULES) == {
        2: Duplicate(of=0, exact=False),
        3: Duplicate(of=0, exact=True),
        4: Duplicate(of=0, exact=True),
    }
    assert find_duplicates(rows, DuplicateRules(near=False)) == {
        3: Duplicate(of=0, exact=True),
        4: Duplicate(of=2, exact=True),
    }


def test_no_pair_is_missed_and_none_invented():
    """Against comparing all with all, on clustered hashes that lie on both sides of every bucket's border."""
    rng = np.random.default_rng(7)
    centres = rng.integers(0, 256, (12, 768))
    spread = rng.integers(0, 13, (400, 1)) * rng.uniform(-1, 1, (400, 768))
    colours = np.clip(centres[rng.integers(12, size=400)] + spread.astype(int), 0, 255)
    bits = rng.integers(0, 4, 400)
    rows = [
        hashed(f"{bit:016x}{bytes(row.tolist()).hex()}", str(i))
        for i, (bit, row) in enumerate(zip(bits, colours, strict=True))
    ]
    rules = DuplicateRules(max_levels=16, max_bits=1)
    expected: dict[int, int] = {}
    kept: list[int] = []
    for i in range(400):
        for k in kept:
            differing = int(bits[i] ^ bits[k]).bit_count()
            if differing <= rules.max_bits and np.abs(colours[i] - colours[k]).max() <= rules.max_levels:
                expected[i] = k
                break
        else:
            kept.append(i)
    assert 0 < len(expected) < 400
    assert {row: duplicate.of for row, duplicate in find_duplicates(rows, rules).items()} == expected


def test_a_hash_of_another_kind_is_an_error():
    with pytest.raises(ValueError, match=f"{HASH_DIGITS} hex digits"):
        find_duplicates([hashed("00ff", "1")], RULES)


def test_copies_in_the_emoji_web(shared_data: Path):
    """Every mirror and thumbnail is found; of 1,300 look-alike glyphs (skin tones!) a handful is lost."""
    rows, names = [], []
    table = pq.read_table(shared_data / "emoji" / "web.parquet", columns=["image", "url"])
    for image, url in zip(table["image"].to_pylist()[:1300], table["url"].to_pylist()[:1300], strict=True):
        try:
            opened = open_image(image, ImageRules())
        except ImageRejected:
            continue
        rows.append(hashed(perceptual_hash(opened), hashlib.sha256(image).hexdigest()))
        names.append(re.sub(r"^.*/|\.\w+$", "", url))
    duplicates = find_duplicates(rows, RULES)
    copies = {i for i, name in enumerate(names) if name in names[:i]}
    assert copies
    assert copies <= set(duplicates)
    assert len(set(duplicates) - copies) <= 2
