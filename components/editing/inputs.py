"""What a user gives to be edited: encoded images to tensors at the model's size, or one line why not.

An image larger or smaller than the model's is cut to its centre square and resized, as training images are;
a mask is cut and resized with it. An image to enlarge is cut to its centre square and not resized: its side
must divide the model's.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from components.conditioning.autoencoder import from_pixels
from components.corpus.images import ImageRejected, ImageRules, open_image, open_opacity
from components.editing.edits import Edit, SuperResolution, inpainting, super_resolution
from components.errors import InputError
from components.shards.decode import square

RULES = ImageRules(min_side=1, max_aspect=100, min_deviation=0)  # a blank page can be edited, too
HALF, OPAQUE = 128, 255  # levels of a mask from which a pixel counts as white; of opacity
T = TypeVar("T")


def read_file(path: Path) -> bytes:
    """The file's bytes. Raises InputError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give an image file") from error


def read_image(path: Path, size: int) -> Tensor:
    """The image as the model sees images, (3, size, size) in [-1, 1]. Raises InputError."""
    return _tensor(_opened(path, open_image), size)


def read_inpainting(path: Path, mask: Path | None, size: int) -> Edit:
    """The image and what is to be filled of it.

    mask: an image as large as that at `path`: white is to be filled; of a mask with transparent pixels these
    are. Without a mask what is transparent in the image itself is to be filled. Raises InputError.
    """
    image = _opened(path, open_image)
    if mask is None:
        opacity = _opened(path, open_opacity)
        if opacity is None:
            raise InputError(
                f"{path}: what is to be filled? Give --mask, an image that is white there, or make the image"
                " itself transparent there"
            )
        hole = opacity.point(lambda level: OPAQUE * (level < OPAQUE))
    else:
        hole = _hole(mask)
        if hole.size != image.size:
            raise InputError(
                f"{mask} is {_size(hole)} pixels and {path} is {_size(image)}; make the mask as large as the"
                " image"
            )
    width, height = hole.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    shares = np.array(hole.resize((size, size), Image.Resampling.BOX, box=box))
    return inpainting(_tensor(image, size), torch.from_numpy(shares > 0))


def read_super_resolution(path: Path, size: int) -> SuperResolution:
    """The small image and how many times it is enlarged. Raises InputError for a side that does not fit."""
    image = _opened(path, open_image)
    side = min(image.size)
    if side >= size or size % side:
        sides = ", ".join(str(n) for n in range(size // 2, 0, -1) if size % n == 0)
        raise InputError(
            f"{path} is {_size(image)} pixels and this model's images are {size}x{size}; give one whose"
            f" shorter side is {sides} pixels"
        )
    return super_resolution(_tensor(image, side), size // side)


def _hole(path: Path) -> Image.Image:
    """White where the mask says to fill, else black. Raises InputError."""
    white = _opened(path, open_image).convert("L").point(lambda level: OPAQUE * (level >= HALF))
    opacity = _opened(path, open_opacity)
    if opacity is None:
        return white
    if white.getextrema() == (OPAQUE, OPAQUE):
        raise InputError(
            f"{path} is white on transparent, and either could be what is to be filled; put it on black"
        )
    return opacity.point(lambda level: OPAQUE * (level < HALF))


def _opened(path: Path, opener: Callable[[bytes, ImageRules], T]) -> T:
    try:
        return opener(read_file(path), RULES)
    except ImageRejected as error:
        raise InputError(f"{path} cannot be edited: {error.rejection.detail}") from error


def _tensor(image: Image.Image, size: int) -> Tensor:
    return from_pixels(np.array(square(image, size))[None])[0]


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
