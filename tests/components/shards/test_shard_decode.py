"""Decoding to a square: what is cropped, what is averaged, what is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from components.corpus.images import ImageRules, open_image
from components.image_size import ImageSize
from components.shards.decode import decode, decode_square

ORIENTATION = 0x0112  # the EXIF tag


def encoded(image: Image.Image, image_format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_mode_becomes_colour_pixels(mode):
    image_format = "JPEG" if mode == "CMYK" else "PNG"
    white = Image.new("RGB", (40, 30), "white").convert(mode)
    assert (decode_square(encoded(white, image_format), 16) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_upright_as_the_filter_saw_it(orientation):
    """Every EXIF orientation, of a size at which JPEG decodes at a fraction and at one where it does not."""
    for size in (16, 64):
        photo = Image.new("RGB", (96, 96), "black")
        photo.paste((255, 255, 255), (0, 0, 48, 24))  # a corner, so that turns and mirrors all differ
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        data = encoded(photo, "JPEG", quality=95, exif=exif)
        upright = open_image(data, ImageRules()).resize((size, size), Image.Resampling.BICUBIC)
        difference = np.abs(decode_square(data, size).astype(int) - np.asarray(upright).astype(int))
        assert difference.mean() < 3


def test_the_centre_is_kept():
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste((0, 0, 255), (30, 0, 60, 30))
    assert (decode_square(encoded(wide, "PNG"), 10)[:, 1:-1] == (0, 0, 255)).all()


def test_an_image_of_the_right_size_is_untouched():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert (decode_square(encoded(Image.fromarray(pixels), "PNG"), 24) == pixels).all()


def test_shrinking_averages_instead_of_skipping():
    """A one-pixel checkerboard is grey from afar; without antialiasing it would be black or white."""
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    small = decode_square(encoded(Image.fromarray(board), "PNG"), 32).astype(int)
    assert abs(small - 127).max() <= 3


def test_a_large_photo_decodes_as_if_it_had_been_decoded_whole():
    """The JPEG short-cut (decoding at a fraction) stays within a few levels of the full decode."""
    x, y = np.meshgrid(np.linspace(0, 255, 1200), np.linspace(0, 255, 900))
    photo = Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))
    quick = decode_square(encoded(photo, "JPEG", quality=95), 32).astype(int)
    whole = decode_square(encoded(photo, "PNG"), 32).astype(int)
    assert abs(quick - whole).max() <= 6


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0 and no more"])
def test_what_is_no_image_is_one_line(data):
    with pytest.raises(ValueError, match=r".+") as caught:
        decode_square(data, 16)
    assert "\n" not in str(caught.value)


def test_a_format_that_we_do_not_write_is_never_decoded():
    with pytest.raises(ValueError, match="cannot identify"):
        decode_square(encoded(Image.new("RGB", (8, 8)), "GIF"), 8)


@pytest.mark.parametrize(("width", "height"), [(90, 30), (30, 90), (48, 40), (24, 40)])
def test_an_image_covers_the_size_of_a_bucket_without_being_squeezed(width, height):
    """The centre of the image stays in place, and lengths along both sides shrink alike."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    pixels = np.stack([columns - width / 2, rows - height / 2, 0 * rows], -1) + 128
    data = encoded(Image.fromarray(pixels.round().astype(np.uint8)), "PNG")
    cropped = decode(data, ImageSize(height=40, width=24)).astype(float)
    assert cropped.shape == (40, 24, 3)
    scale = min(width / 24, height / 40)
    across, down = (np.arange(24) + 0.5 - 12) * scale + 128, (np.arange(40) + 0.5 - 20) * scale + 128
    assert np.abs(cropped[:, :, 0] - across)[:, 2:-2].max() <= 1
    assert np.abs(cropped[:, :, 1] - down[:, None])[2:-2].max() <= 1
