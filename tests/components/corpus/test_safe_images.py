"""Opening untrusted bytes: an image comes out upright in RGB, everything else gets a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from components.corpus.images import ImageRejected, ImageRules, deviation, open_image, open_reduced
from components.corpus.schemas import Reason

RULES = ImageRules()


def photo(width: int = 80, height: int = 64, mode: str = "RGB") -> Image.Image:
    """Smooth colours with some noise: compresses like a photo, and every corner is different."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 20, (height, width, 3))
    pixels = np.stack([x * 200 // width, y * 200 // height, 100 + 0 * x], -1) + noise
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rejection_of(data: bytes | None, rules: ImageRules = RULES) -> tuple[Reason, str]:
    with pytest.raises(ImageRejected) as caught:
        open_image(data, rules)
    return caught.value.rejection.reason, caught.value.rejection.detail


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(side: int) -> bytes:
    """A square one-colour PNG, a few kilobytes for hundreds of megapixels."""
    compressor = zlib.compressobj(9)
    row = b"\0" + bytes((side + 7) // 8)
    body = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "RGBA", "LA", "1"])
def test_every_mode_becomes_rgb(kind, mode):
    try:
        data = encoded(photo(mode="RGB").convert(mode), kind)
    except OSError:
        pytest.skip(f"{kind} does not hold {mode}")
    image = open_image(data, RULES)
    assert image.mode == "RGB"
    assert image.size == (80, 64)
    assert deviation(image) > 20


def test_what_is_transparent_becomes_white():
    image = photo(mode="RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 40, 64))
    opened = np.asarray(open_image(encoded(image, "PNG"), RULES))
    assert (opened[:, :40] == 255).all()
    assert (opened[:, 40:] == np.asarray(photo())[:, 40:]).all()
    palette = photo().quantize(16)
    palette.info["transparency"] = palette.getpixel((5, 5))
    opened = open_image(encoded(palette, "PNG", transparency=palette.getpixel((5, 5))), RULES)
    assert opened.getpixel((5, 5)) == (255, 255, 255)


def test_an_image_is_turned_as_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: a browser shows it rotated by 90 degrees
    upright = open_image(encoded(photo(), "PNG", exif=exif), RULES)
    assert upright.size == (64, 80)
    assert upright.tobytes() == photo().transpose(Image.Transpose.ROTATE_270).tobytes()


@pytest.mark.parametrize(
    ("side", "expected"), [(100, (192, 144)), (192, (256, 192)), (193, (512, 384)), (None, (512, 384))]
)
def test_a_jpeg_may_be_decoded_smaller_and_its_size_is_known(side, expected):
    exif = Image.Exif()
    exif[0x0112] = 6
    for options, turn in (({}, slice(None)), ({"exif": exif}, slice(None, None, -1))):
        data = encoded(photo(512, 384), "JPEG", quality=90, **options)
        reduced = open_reduced(data, RULES, side)
        assert (reduced.width, reduced.height) == (512, 384)[turn]
        assert reduced.pixels.size == expected[turn]
        whole = open_image(data, RULES).resize(reduced.pixels.size, Image.Resampling.BOX)
        difference = np.asarray(whole, np.int16) - np.asarray(reduced.pixels, np.int16)
        assert np.abs(difference).mean() < 2
    cut = data[: len(data) // 2] + b"\xff\xd9"
    with pytest.raises(ImageRejected, match="image_broken"):
        open_reduced(cut, RULES, side)


def test_other_formats_are_decoded_whole():
    reduced = open_reduced(encoded(photo(512, 384), "PNG"), RULES, 100)
    assert reduced.pixels.tobytes() == photo(512, 384).tobytes()
    assert (reduced.width, reduced.height) == (512, 384)


def test_sixteen_bits_are_scaled_not_clipped():
    levels = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    opened = np.asarray(open_image(encoded(Image.fromarray(levels), "PNG"), RULES))[..., 0]
    assert np.abs(opened.astype(int) - levels // 257).max() <= 1


@pytest.mark.parametrize(
    ("data", "reason", "part_of_detail"),
    [
        (None, Reason.IMAGE_MISSING, "null"),
        (b"", Reason.IMAGE_MISSING, "no bytes"),
        (b"\0", Reason.IMAGE_BROKEN, "not an image"),
        (b"PK\x03\x04 some archive", Reason.IMAGE_BROKEN, "not an image"),
        (b"<!DOCTYPE html><html>404</html>", Reason.IMAGE_FORMAT, "HTML"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', Reason.IMAGE_FORMAT, "SVG"),
        (b'<?xml version="1.0"?>\n<svg/>', Reason.IMAGE_FORMAT, "SVG"),
        (b"%PDF-1.7", Reason.IMAGE_FORMAT, "PDF"),
        (encoded(photo(), "GIF"), Reason.IMAGE_FORMAT, "GIF"),
        (encoded(photo(), "TIFF"), Reason.IMAGE_FORMAT, "TIFF"),
        (encoded(photo(), "BMP"), Reason.IMAGE_FORMAT, "BMP"),
        (encoded(photo(1, 1), "PNG"), Reason.IMAGE_TOO_SMALL, "1x1"),
        (encoded(photo(500, 20), "PNG"), Reason.IMAGE_TOO_SMALL, "500x20"),
        (encoded(photo(500, 40), "PNG"), Reason.IMAGE_ASPECT, "1:12.5"),
        (encoded(Image.new("RGB", (64, 64), "red"), "JPEG"), Reason.IMAGE_BLANK, "one colour"),
        (encoded(Image.new("RGBA", (64, 64), (9, 9, 9, 0)), "PNG"), Reason.IMAGE_BLANK, "one colour"),
    ],
)
def test_what_is_no_usable_image_gets_its_reason(data, reason, part_of_detail):
    actual, detail = rejection_of(data)
    assert actual == reason
    assert part_of_detail in detail


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_an_animation_is_refused(kind):
    frames = [photo(), photo().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    assert rejection_of(data) == (Reason.IMAGE_FORMAT, f"animated {kind}")


@pytest.mark.parametrize("side", [8_000, 20_000])
def test_a_decompression_bomb_is_refused_by_its_header(side, monkeypatch):
    data = png_bomb(side)
    assert len(data) < 100_000
    assert rejection_of(data)[0] == Reason.IMAGE_TOO_LARGE


def test_a_bomb_in_a_text_chunk_does_not_expand():
    data = encoded(photo(), "PNG")
    body = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    assert rejection_of(data[:33] + png_chunk(b"zTXt", body) + data[33:])[0] == Reason.IMAGE_BROKEN


def test_a_file_over_the_byte_limit_is_not_opened():
    assert rejection_of(encoded(photo(), "PNG"), ImageRules(max_bytes=100))[0] == Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})],
)
def test_a_cut_file_is_refused_wherever_it_was_cut(kind, options):
    data = encoded(photo(), kind, **options)
    assert open_image(data, RULES).size == (80, 64)
    cuts = sorted({*range(1, len(data), 23), *range(len(data) - 16, len(data))})
    for cut in cuts:
        reason, _ = rejection_of(data[:cut])
        assert reason == Reason.IMAGE_BROKEN, f"cut at {cut} of {len(data)}"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_bytes_give_an_image_or_a_reason_and_nothing_else(kind):
    data, rng = encoded(photo(), kind), np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 4):
            damaged[position] = rng.integers(256)
        try:
            assert open_image(bytes(damaged), RULES).mode == "RGB"
        except ImageRejected as error:
            assert "\n" not in error.rejection.detail
