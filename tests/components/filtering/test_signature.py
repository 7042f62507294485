"""An image is told to be blank by a part of it as by all of it; a signature is of the pixels in any mode."""

import numpy as np
import pytest
from PIL import Image

from components.corpus.images import deviation, is_blank
from components.filtering.signature import WHOLE, signature_of


@pytest.mark.parametrize("spread", [0, 1, 3, 40])
def test_an_image_is_blank_by_a_part_exactly_when_it_is_by_all(spread):
    levels = 100 + np.random.default_rng(spread).integers(0, spread + 1, (50, 70, 3), dtype=np.uint8)
    half = np.concatenate([levels[:25], np.full((25, 70, 3), 100, np.uint8)])
    for image in map(Image.fromarray, (levels, half)):
        for least in (0.0, 0.5, 1.0, 12.0):
            assert is_blank(image, least) == (deviation(image) < least)


def test_a_signature_is_of_the_pixels_whatever_mode_they_came_in():
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8))
    assert signature_of(grey) == signature_of(grey.convert("RGB"))


@pytest.mark.parametrize("size", [(512, 384), (257, 300), (1023, 767), (90, 64)])
def test_a_border_is_trimmed_whatever_the_images_size(size):
    width, height = size
    colours = np.random.default_rng(sum(size)).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = Image.fromarray(colours).resize(size)
    assert signature_of(image).content_box == WHOLE
    image.paste((250, 250, 250), (0, 0, width // 9, height))
    left, *others = signature_of(image).content_box
    assert abs(left - 1 / 9) < 0.02 and others == [0.0, 1.0, 1.0]
