"""Encoded bytes to pixels of one size, as training sees them.

The bytes come from verified tars whose images the filter has opened; here they are decoded again, by the
same rules of what an image looks like (upright, transparent parts on white), but at training's size.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.corpus.images import DECODE_ERRORS, upright_rgb
from components.corpus.sniffing import FORMATS
from components.errors import InputError, one_line
from components.image_size import ImageSize


def decode(data: bytes, size: ImageSize) -> npt.NDArray[np.uint8]:
    """Decode, centre-crop and resize (antialiased) to (height, width, 3). Raises InputError with one line."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # A JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the cost; twice the side keeps quality. It
            # may yet have to be turned: the longer side is asked for both ways.
            image.draft("RGB", (2 * max(size), 2 * max(size)))
            return covering(upright_rgb(image), size)
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise InputError(one_line(error)) from error


def decode_square(data: bytes, side: int) -> npt.NDArray[np.uint8]:
    """The same to a square, (side, side, 3)."""
    return decode(data, ImageSize.square(side))


def square(image: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    """The centre square of an RGB image, resized to (side, side, 3)."""
    return covering(image, ImageSize.square(side))


def covering(image: Image.Image, size: ImageSize) -> npt.NDArray[np.uint8]:
    """The largest centred part of an RGB image that has the size's aspect ratio, resized to it."""
    width, height = image.size
    if width * size.height > height * size.width:  # wider than the size
        across, down = height * size.width / size.height, float(height)
    else:
        across, down = float(width), width * size.height / size.width
    left, top = (width - across) / 2, (height - down) / 2
    box = (left, top, left + across, top + down)
    return np.asarray(image.resize((size.width, size.height), Image.Resampling.BICUBIC, box=box))
