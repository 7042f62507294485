"""Encoded bytes to pixels, where whatever a decoder warns of is an error.

Pillow passes over the warnings of libjpeg and the checksums of PNG, so a JPEG that was cut and closed with an
end marker, or one whose scan was overwritten, would come out half grey. A damaged scan that happens to be a
valid one of the same length has no warning: nothing in the file tells. WebP's decoder knows no warnings.
"""

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

JPEG_SCAN = b"\xff\xda"  # the marker before each scan
MOST_SCANS = 100  # of a progressive JPEG: each costs as much as a whole decode; encoders write about 10
PNG_SIGNATURE = 8  # bytes
PNG_FRAME = 12  # bytes of a chunk beside its data: length, type, CRC
PNG_END, PNG_DATA = b"IEND", b"IDAT"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
ADAM7 = (  # of each pass of an interlaced PNG: the first column and row, and the steps between them
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
INFLATED_AT_A_TIME = 1 << 20  # bytes


def decode(image: Image.Image, data: bytes, least_side: int | None = None) -> Image.Image:
    """The pixels of an image that Pillow opened from `data`, with its info. Raises what a decoder raises.

    least_side: a JPEG may come out at half of its size or less (n eighths) while its shorter side keeps so
    many pixels. Its whole scan is read all the same.
    """
    if image.format in ("JPEG", "MPO"):
        return _decode_jpeg(image, data, least_side)
    if image.format == "PNG":
        return _decode_png(image, data)
    image.load()
    return image


def _decode_png(image: Image.Image, data: bytes) -> Image.Image:
    """The image, if all of its rows are there. Pillow leaves those black that are not."""
    pixel_data = [data[start:stop] for kind, start, stop in _png_chunks(data) if kind == PNG_DATA]
    image.load()
    bits, colour_type, interlaced = data[24], data[25], data[28]
    last_row = image.crop((0, image.height - 1, *image.size))
    if interlaced or not last_row.getbbox(alpha_only=False):
        steps = ADAM7 if interlaced else ((0, 0, 1, 1),)
        row_bits = bits * PNG_CHANNELS.get(colour_type, 0)
        expected = 0
        for column, row, right, down in steps:
            width, height = -((column - image.width) // right), -((row - image.height) // down)
            expected += height * (1 + (width * row_bits + 7) // 8) if width > 0 else 0
        if not _inflates_to(b"".join(pixel_data), expected):
            raise ValueError(f"PNG with less data than {image.width}x{image.height} takes")
    return image


def _inflates_to(data: bytes, expected: int) -> bool:
    """Whether at least so many bytes were compressed into `data`."""
    stream, size = zlib.decompressobj(), 0
    while size < expected and (inflated := stream.decompress(data, INFLATED_AT_A_TIME)):
        size += len(inflated)
        data = stream.unconsumed_tail
    return size >= expected


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, where its data begins, where it ends) of each chunk, up to the end chunk.

    Raises ValueError where there is none, or where one that the image needs has not its checksum. Chunks with
    text and the like may be damaged (PNG 1.2, 3.3).
    """
    at, kind = PNG_SIGNATURE, b""
    while kind != PNG_END:
        length = int.from_bytes(data[at : at + 4])
        end = at + PNG_FRAME + length
        if end > len(data):
            raise ValueError("PNG without an end: the file is cut")
        kind = data[at + 4 : at + 8]
        needed = not kind[0] & 0x20  # an upper-case first letter
        if needed and zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise ValueError(f"PNG chunk {kind.decode('ascii', 'replace')} has a wrong checksum")
        yield kind, at + 8, end - 4
        at = end


def _decode_jpeg(image: Image.Image, data: bytes, least_side: int | None) -> Image.Image:
    """The first picture in `data` (an MPO holds more), by the libjpeg-turbo that Pillow has, too."""
    import simplejpeg

    scans = data.count(JPEG_SCAN)
    if scans > MOST_SCANS:
        raise ValueError(f"JPEG of {scans} scans, at most {MOST_SCANS}")
    height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=True)
    if (width, height) != image.size:  # the limits were held against Pillow's reading
        raise ValueError(f"JPEG with two sizes: {image.width}x{image.height} and {width}x{height}")
    if image.mode == "CMYK":
        _jpeg_pixels(data, "CMYK", None)  # for its warnings; Pillow knows when the inks are inverted
        image.load()
        return image
    # Four bytes a pixel are how Pillow holds RGB: they are copied as they are, where three are spread out.
    pixels = _jpeg_pixels(data, "RGBX", least_side)
    decoded = Image.frombytes("RGB", pixels.shape[1::-1], pixels, "raw", "RGBX", 0, 1)
    decoded.info, decoded.format = image.info, image.format
    return decoded


def _jpeg_pixels(data: bytes, colours: str, least_side: int | None) -> "npt.NDArray[np.uint8]":
    import simplejpeg

    reduced = {}
    if least_side is not None:
        reduced = {"min_height": least_side, "min_width": least_side, "min_factor": 2}
    pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, strict=True, **reduced)
    return pixels
