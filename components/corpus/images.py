"""Untrusted bytes to an upright RGB image, opened once and safely, or the reason why not.

The header is checked (format, size, frames) before a pixel is decoded, and what a decoder warns of is an
error (decoders.py). How an image looks, turned and in sRGB, is decided by `upright_rgb`, for training too.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from components.corpus.colour import to_srgb
from components.corpus.decoders import decode
from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.corpus.sniffing import FORMATS, SNIFFED, document_format, image_format
from components.errors import one_line

DETAIL_CHARACTERS = 160  # of a decoder's error in a rejection
PILLOW_LIMIT = 178_956_970  # pixels; Pillow itself refuses larger images whatever our rule says

ORIENTED = frozenset(("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"))  # where Pillow finds it
PART = 16  # of an image's lines, one is looked at first for what varies
ROUNDING = 1e-3  # levels; far above what sums of shares lose
SEVERAL_PICTURES = "MPO"  # a JPEG with more of them after it (a second view, a depth map): the first is shown

# What Pillow's decoders raise on malformed bytes. Listed, so that a bug of ours is not taken for one.
DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, struct.error),
    zlib.error,
)

T = TypeVar("T")


class ImageRules(BaseModel):
    """What an image must be to go on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_side: int = Field(default=32, ge=1, description="shorter side, pixels")
    max_pixels: int = Field(
        default=50_000_000, ge=1, le=PILLOW_LIMIT, description="width times height, pixels"
    )
    max_bytes: int = Field(default=50_000_000, ge=1, description="size of the file, bytes")
    max_aspect: float = Field(default=3.0, ge=1, description="longer side over shorter side (DataComp: 3)")
    min_deviation: float = Field(
        default=1.0,
        ge=0,
        description="standard deviation of the channel that varies most, levels of 255; below is blank",
    )


class ImageRejected(Exception):
    """These bytes do not go on; `rejection` says why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.rejection = Rejection(reason, detail)


@dataclass(frozen=True)
class Reduced:
    """An image that may have been decoded smaller. width, height: of the whole one, pixels, upright."""

    pixels: Image.Image
    width: int
    height: int


def open_image(data: bytes | None, rules: ImageRules) -> Image.Image:
    """The image in `data`, decoded, upright, RGB, what is transparent on white. Raises ImageRejected."""
    return open_reduced(data, rules, None).pixels


def open_reduced(data: bytes | None, rules: ImageRules, least_side: int | None) -> Reduced:
    """The same; a JPEG at half of its size or less where its shorter side keeps `least_side` pixels, as who
    only makes a small picture of it may have it. None: whole.
    """

    def reduced(header: Image.Image, decoded: Image.Image) -> Reduced:
        pixels = upright_rgb(decoded)
        width, height = header.size if pixels.size == decoded.size else header.size[::-1]  # or turned
        return Reduced(pixels, width, height)

    image = _opened(data, rules, reduced, least_side)
    if is_blank(image.pixels, rules.min_deviation):
        raise ImageRejected(Reason.IMAGE_BLANK, "one colour all over")
    return image


def open_opacity(data: bytes | None, rules: ImageRules) -> Image.Image | None:
    """How opaque each pixel of the image in `data` is, upright: 0 to 255; None where all are wholly so.

    Raises ImageRejected as `open_image` does.
    """
    return _opened(data, rules, lambda _, decoded: upright_opacity(decoded))


def is_blank(image: Image.Image, min_deviation: float) -> bool:
    """Whether an RGB image varies less than `min_deviation` (levels of 255); of most, a part shows it.

    A variance is at least a part's own, times the part's share of the pixels: the rest can only add to it.
    """
    part = image.crop((0, image.height // 2, image.width, image.height // 2 + -(-image.height // PART)))
    share = part.height / image.height
    if deviation(part) * share**0.5 > min_deviation + ROUNDING:
        return False
    return deviation(image) < min_deviation


def deviation(image: Image.Image) -> float:
    """Standard deviation of the channel of an RGB image that varies most, levels of 255."""
    counts = np.array(image.histogram(), np.float64).reshape(-1, 256)  # (channels, levels)
    shares = counts / counts.sum(1, keepdims=True)
    levels = np.arange(256)
    variance = shares @ levels**2 - (shares @ levels) ** 2
    return float(np.sqrt(variance.max().clip(0)))


def upright_rgb(image: Image.Image) -> Image.Image:
    """RGB as a browser shows it: turned as EXIF says, 16 bits scaled to 8, in sRGB, transparent on white."""
    turned = _turned(image)
    if turned.mode.startswith("I") or turned.mode == "F":
        turned = turned.point(lambda level: level / 257).convert("L")  # 65535 / 257 = 255
    if not turned.has_transparency_data:
        return to_srgb(turned)
    layer = turned.convert("RGBA")
    colours = to_srgb(layer.convert("RGB"))
    colours.putalpha(layer.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), colours).convert("RGB")


def upright_opacity(image: Image.Image) -> Image.Image | None:
    """The alpha channel, turned as EXIF says; None where nothing is transparent."""
    if not image.has_transparency_data:
        return None
    opacity = _turned(image).convert("RGBA").getchannel("A")
    return None if opacity.getextrema() == (255, 255) else opacity


def _turned(image: Image.Image) -> Image.Image:
    """The image as EXIF says; as it is where its EXIF cannot be read, as browsers do."""
    try:
        if type(image) is Image.Image and not ORIENTED.intersection(image.info):  # pixels, all read
            return image
        return ImageOps.exif_transpose(image)
    except DECODE_ERRORS:
        return image


def _opened(
    data: bytes | None,
    rules: ImageRules,
    convert: Callable[[Image.Image, Image.Image], T],
    least_side: int | None = None,
) -> T:
    """What `convert` makes of the header and the decoded image in `data`; least_side: see decoders.decode."""
    if not data:
        raise ImageRejected(Reason.IMAGE_MISSING, "null" if data is None else "no bytes")
    if len(data) > rules.max_bytes:
        raise ImageRejected(Reason.IMAGE_TOO_LARGE, f"{len(data)} bytes, at most {rules.max_bytes}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what our own limits decide
        image = _open_header(data)
        _check_header(image, rules)
        try:
            return convert(image, decode(image, data, least_side))
        except MemoryError as error:
            raise ImageRejected(Reason.QUARANTINED, "decoding it takes more memory than there is") from error
        except DECODE_ERRORS as error:
            raise ImageRejected(Reason.IMAGE_BROKEN, one_line(error, DETAIL_CHARACTERS)) from error


def _open_header(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageRejected(Reason.IMAGE_TOO_LARGE, one_line(error, DETAIL_CHARACTERS)) from error
    except UnidentifiedImageError as error:
        name = image_format(head := data[:SNIFFED]) or document_format(head)
        if name is not None and name not in FORMATS:  # a JPEG without a header is broken
            raise ImageRejected(Reason.IMAGE_FORMAT, f"{name}, not {', '.join(FORMATS)}") from error
        raise ImageRejected(Reason.IMAGE_BROKEN, "not an image") from error
    except DECODE_ERRORS as error:
        raise ImageRejected(Reason.IMAGE_BROKEN, one_line(error, DETAIL_CHARACTERS)) from error


def _check_header(image: Image.Image, rules: ImageRules) -> None:
    """Reject by what the header says, before a pixel is decoded."""
    width, height = image.size
    if width * height > rules.max_pixels:
        detail = f"{width}x{height} is over {rules.max_pixels} pixels"
        raise ImageRejected(Reason.IMAGE_TOO_LARGE, detail)
    if getattr(image, "is_animated", False) and image.format != SEVERAL_PICTURES:
        raise ImageRejected(Reason.IMAGE_FORMAT, f"animated {image.format}")
    if min(width, height) < rules.min_side:
        raise ImageRejected(Reason.IMAGE_TOO_SMALL, f"{width}x{height}, at least {rules.min_side} a side")
    aspect = max(width, height) / min(width, height)
    if aspect > rules.max_aspect:
        detail = f"{width}x{height} is 1:{aspect:.1f}, at most 1:{rules.max_aspect:g}"
        raise ImageRejected(Reason.IMAGE_ASPECT, detail)
