"""A rejected record's image as it is kept to be looked at: small, as JPEG, whatever the original was."""

import hashlib
import io
from dataclasses import dataclass

from PIL import Image

from components.corpus.images import ImageRejected, open_image
from components.corpus.labelled import RULES
from components.errors import one_line

SIDE = 96  # pixels of the longer side, at most
MOST_BYTES = 8192
QUALITIES = (80, 50, 20)  # of the JPEG; the first that fits: 96 x 96 pixels of noise take 2.6 kB at the last
DETAIL_CHARACTERS = 120


@dataclass(frozen=True)
class SmallImage:
    """A JPEG of at most SIDE pixels and MOST_BYTES, or in a few words why there is none.

    sha256: of the bytes that it was made from (hex).
    """

    jpeg: bytes | None
    problem: str | None = None
    sha256: str | None = None


def small_image(data: bytes | None) -> SmallImage:
    """The image in untrusted bytes, upright and in sRGB, without its metadata. Never raises.

    The same bytes give the same, whatever the machine. A large image costs a whole decode.
    """
    if not data:
        return SmallImage(None, "no image")
    try:
        image = open_image(data, RULES)
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        image.info = {}  # a comment would be written, too
        return SmallImage(_encoded(image), sha256=hashlib.sha256(data).hexdigest())
    except ImageRejected as error:
        return SmallImage(None, error.rejection.detail)
    except Exception as error:  # noqa: BLE001 (the per-record boundary: a decoder may raise anything)
        return SmallImage(None, one_line(f"{type(error).__name__}: {error}", DETAIL_CHARACTERS))


def _encoded(image: Image.Image) -> bytes:
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= MOST_BYTES:
            return buffer.getvalue()
    raise ValueError(f"takes more than {MOST_BYTES} bytes at quality {QUALITIES[-1]}")
