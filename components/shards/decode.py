"""Encoded bytes to a square of pixels, as training sees them.

The bytes come from verified tars whose images the filter has opened; here they are decoded again, by the
same rules of what an image looks like (upright, transparent parts on white), but at training's size.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.corpus.images import DECODE_ERRORS, FORMATS, upright_rgb
from components.errors import InputError, one_line


def decode_square(data: bytes, size: int) -> npt.NDArray[np.uint8]:
    """Decode, centre-crop and resize (antialiased) to (size, size, 3). Raises InputError with one line."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # A JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the cost; twice the side keeps quality.
            image.draft("RGB", (2 * size, 2 * size))
            return square(upright_rgb(image), size)
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise InputError(one_line(error)) from error


def square(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """The centre square of an RGB image, resized to (size, size, 3)."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
