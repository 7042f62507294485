"""Images of a corpus as a page can embed them: small, safe, and named as broken where they are."""

import base64
import io
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP")  # what is embedded; everything else a page would not show is named
EMBED_SIDE = 256  # pixels; a larger image is reduced to this
EMBED_BYTES = 96 * 1024  # a small image with more bytes than this is encoded again
DECODE_PIXELS = 40_000_000  # a larger image is never decoded for the sake of a report


@dataclass(frozen=True)
class Thumbnail:
    """An image as a data URI, or in a few words why there is none."""

    uri: str | None
    width: int = 0
    height: int = 0
    problem: str = ""

    @property
    def hard_pixels(self) -> bool:
        """Whether it is so small that it should be scaled up without smoothing."""
        return max(self.width, self.height) <= 64


def thumbnail(data: bytes | None, problem: str = "") -> Thumbnail:
    """`data` as a page can show it. Never raises: for an image that does not open, `problem` says why.

    problem: why there is no data, where that is known.
    """
    if not data:
        return Thumbnail(None, problem=problem or "no image")
    try:
        return _opened(data)
    except Image.DecompressionBombError:
        return Thumbnail(None, problem=f"too large to show, {len(data):,} bytes")
    except UnidentifiedImageError:
        return Thumbnail(None, problem=f"not an image that is read, {len(data):,} bytes")
    except Exception as error:  # noqa: BLE001  the per-record boundary: a decoder may raise anything
        return Thumbnail(None, problem=f"broken, {len(data):,} bytes ({type(error).__name__})")


def _opened(data: bytes) -> Thumbnail:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if width * height > DECODE_PIXELS:
            return Thumbnail(None, width, height, problem=f"{width} × {height}, too large to show")
        image.load()
        if max(width, height) <= EMBED_SIDE and len(data) <= EMBED_BYTES:
            return Thumbnail(_uri(data, image.format or "PNG"), width, height)
        return Thumbnail(_uri(_reduced(image), "WEBP"), width, height)


def _reduced(image: Image.Image) -> bytes:
    small = image.convert("RGBA" if "A" in image.mode or "transparency" in image.info else "RGB")
    small.thumbnail((EMBED_SIDE, EMBED_SIDE), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    small.save(encoded, "WEBP", quality=85)
    return encoded.getvalue()


def _uri(data: bytes, form: str) -> str:
    return f"data:image/{form.lower()};base64,{base64.b64encode(data).decode('ascii')}"
