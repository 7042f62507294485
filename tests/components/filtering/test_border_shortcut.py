"""What is looked at first to save time decides as looking at all of it does."""

import numpy as np
import pytest
from PIL import Image

from components.corpus.images import is_blank, measure
from components.filtering import signature
from components.filtering.signature import content_box, signature_of

SIZES = ((512, 384), (700, 20), (257, 300), (333, 500), (1023, 767), (1200, 900), (90, 64))


def pictures(rng: np.random.Generator, size: tuple[int, int]) -> list[Image.Image]:
    """A photo's colours, faint ones, one with a border, and levels at the very threshold of a border's."""
    width, height = size
    colours = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize(size)
    faint = Image.fromarray((np.asarray(colours) // 16 + 100).astype(np.uint8))
    bordered = colours.copy()
    bordered.paste((250, 250, 250), (0, 0, width // 9, height))
    edge = 128 + rng.choice([-28, -27, -26, 0, 0, 26, 27, 28], (height, width, 1))
    return [colours, faint, bordered, Image.fromarray(np.repeat(edge, 3, 2).astype(np.uint8))]


@pytest.mark.parametrize("size", SIZES)
def test_edges_that_rule_a_border_out_never_hide_one(size, monkeypatch):
    images = pictures(np.random.default_rng(sum(size)), size)
    boxes = [content_box(image) for image in images]
    shortcuts = sum(map(signature._differs_at_every_edge, images))
    monkeypatch.setattr(signature, "_differs_at_every_edge", lambda image: False)
    assert boxes == [content_box(image) for image in images]
    assert shortcuts >= (max(size) < 1024)


@pytest.mark.parametrize("size", SIZES)
def test_borders_are_looked_for_in_what_pillow_calls_a_thumbnail(size):
    small = Image.new("L", size)
    small.thumbnail((256, 256))
    assert signature._trim_size(*size) == small.size


@pytest.mark.parametrize("spread", [0, 1, 3, 40])
def test_an_image_is_blank_by_a_part_exactly_when_it_is_by_all(spread):
    levels = 100 + np.random.default_rng(spread).integers(0, spread + 1, (50, 70, 3), dtype=np.uint8)
    half = np.concatenate([levels[:25], np.full((25, 70, 3), 100, np.uint8)])
    for image in map(Image.fromarray, (levels, half)):
        for least in (0.0, 0.5, 1.0, 12.0):
            assert is_blank(image, least) == (measure(image).deviation < least)


def test_a_signature_is_of_the_pixels_whatever_mode_they_came_in():
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8))
    assert signature_of(grey) == signature_of(grey.convert("RGB"))
