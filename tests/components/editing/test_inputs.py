"""A user's files: what is cut, resized and filled, and what is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.conditioning.autoencoder import to_pixels
from components.editing.inputs import read_image, read_inpainting, read_super_resolution
from components.errors import InputError

SIDE = 8
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@pytest.fixture
def saved(tmp_path):
    """`saved(array, mode)` -> a PNG of it."""

    def save(array: np.ndarray, name: str = "image.png") -> Path:
        Image.fromarray(array.astype(np.uint8)).save(tmp_path / name)
        return tmp_path / name

    return save


def levels(image) -> np.ndarray:
    return to_pixels(image[None])[0]


def rgba(pixels: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, opacity]).astype(np.uint8)


def test_an_image_of_the_model_s_size_is_taken_as_it_is_and_another_s_centre_square_is_resized(saved):
    assert np.array_equal(levels(read_image(saved(PIXELS), SIDE)), PIXELS)
    wide = np.full((2 * SIDE, 4 * SIDE, 3), (9, 200, 90))
    wide[:, : SIDE - 3], wide[:, 3 * SIDE + 3 :] = 255, 0
    assert np.array_equal(levels(read_image(saved(wide), SIDE)), wide[::2, 2 * SIDE : 3 * SIDE])


def test_what_is_white_in_the_mask_is_filled(saved):
    mask = np.zeros((SIDE, SIDE))
    mask[2:4, 3:7], mask[6, 0] = 255, 100  # a faint edge is black
    edit = read_inpainting(saved(PIXELS), saved(mask, "mask.png"), SIDE)
    assert np.array_equal(edit.hole[0].numpy(), mask > 128)
    kept = mask <= 128
    assert np.array_equal(levels(edit.start)[kept], PIXELS[kept])


def test_a_mask_is_cut_with_its_image_and_grows_to_whole_pixels(saved):
    image, mask = np.tile(PIXELS, (2, 4, 1)), np.zeros((2 * SIDE, 4 * SIDE))
    mask[5, SIDE + 5] = 255  # a quarter of a pixel of the model's
    mask[:, :3] = 255  # outside of the square
    hole = read_inpainting(saved(image), saved(mask, "mask.png"), SIDE).hole[0].numpy()
    assert np.argwhere(hole).tolist() == [[2, 2]]


def test_what_is_transparent_is_filled_in_a_mask_as_in_the_image_itself(saved):
    opacity = np.full((SIDE, SIDE), 255)
    opacity[1:3, 2:5] = 0
    layer = saved(rgba(PIXELS, opacity), "layer.png")
    for edit in (read_inpainting(layer, None, SIDE), read_inpainting(saved(PIXELS), layer, SIDE)):
        assert np.array_equal(edit.hole[0].numpy(), opacity == 0)
        assert np.array_equal(levels(edit.start)[opacity == 255], PIXELS[opacity == 255])


def test_a_small_image_is_enlarged_by_whole_factors(saved):
    for side in (1, 2, 4):
        small = PIXELS[:side, :side]
        edit = read_super_resolution(saved(np.pad(small, ((0, 0), (1, 1), (0, 0)))), SIDE)
        assert edit.factor == SIDE // side
        assert np.array_equal(levels(edit.start), small.repeat(edit.factor, 0).repeat(edit.factor, 1))


def test_what_cannot_be_edited_is_refused_in_one_line(saved, tmp_path):
    image, other = saved(PIXELS), saved(PIXELS[:, :6], "other.png")
    (tmp_path / "text.png").write_text("a red circle")
    (tmp_path / "page.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    black = saved(np.zeros((SIDE, SIDE)), "black.png")
    white = saved(np.full((SIDE, SIDE), 255), "white.png")
    strokes = saved(rgba(np.full_like(PIXELS, 255), np.eye(SIDE) * 255), "strokes.png")
    refused = {
        "none.png cannot be read (No such file or directory)": lambda: read_image(tmp_path / "none.png", 8),
        "cannot be read (Is a directory)": lambda: read_image(tmp_path, 8),
        "text.png cannot be edited: not an image": lambda: read_image(tmp_path / "text.png", 8),
        "page.png cannot be edited: SVG, not JPEG, PNG, WEBP": lambda: read_image(tmp_path / "page.png", 8),
        "image.png: what is to be filled? Give --mask": lambda: read_inpainting(image, None, 8),
        "none.png cannot be read": lambda: read_inpainting(image, tmp_path / "none.png", 8),
        "other.png is 6x8 pixels and": lambda: read_inpainting(image, other, 8),
        "nothing is to be filled": lambda: read_inpainting(image, black, 8),
        "everything is to be filled": lambda: read_inpainting(image, white, 8),
        "strokes.png is white on transparent": lambda: read_inpainting(image, strokes, 8),
        "other.png is 6x8 pixels and this model's images are 8x8; give one whose shorter side is 4, 2, 1": (
            lambda: read_super_resolution(other, 8)
        ),
        "image.png is 8x8 pixels and this model's images are 8x8": lambda: read_super_resolution(image, 8),
    }
    for message, call in refused.items():
        with pytest.raises(InputError) as error:
            call()
        assert message in str(error.value) and len(str(error.value).splitlines()) == 1
