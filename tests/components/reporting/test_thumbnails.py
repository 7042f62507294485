"""Images as a page embeds them: small ones as they are, large ones reduced, broken ones by name."""

import base64
import io

import pytest
from PIL import Image

from components.reporting.thumbnails import EMBED_SIDE, thumbnail
from tests.components.reporting.small_report import encoded


def test_small_images_are_embedded_byte_for_byte():
    for form in ("JPEG", "PNG", "WEBP"):
        data = encoded(form)
        shown = thumbnail(data)
        assert shown.uri == f"data:image/{form.lower()};base64,{base64.b64encode(data).decode()}"
        assert (shown.width, shown.height, shown.hard_pixels) == (32, 32, True)


def test_large_images_are_reduced_and_keep_their_alpha():
    shown = thumbnail(encoded("PNG", side=600, mode="RGBA"))
    data = base64.b64decode(shown.uri.removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (EMBED_SIDE, EMBED_SIDE)
        assert image.mode == "RGBA"
    assert (shown.width, shown.height) == (600, 600)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (None, "no image"),
        (b"", "no image"),
        (b"GIF89a not really", "not an image that is read, 17 bytes"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "not an image that is read"),
        (encoded("PNG")[:300], "broken, 300 bytes"),
        (encoded("JPEG", side=200)[:900], "broken, 900 bytes"),
    ],
)
def test_what_does_not_open_is_named(data: bytes | None, problem: str):
    shown = thumbnail(data)
    assert shown.uri is None
    assert shown.problem.startswith(problem)


@pytest.mark.parametrize("side", [7_000, 40_000])
def test_a_decompression_bomb_is_never_decoded(side: int):
    """A PNG header that promises side x side pixels, with no pixels behind it."""
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = (
        struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    )
    shown = thumbnail(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 100) + b"IDAT" + bytes(100))
    assert shown.uri is None
    assert "too large to show" in shown.problem
