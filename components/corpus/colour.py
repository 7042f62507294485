"""Colours as the file's ICC profile means them, in sRGB, as a browser shows them.

A profile that is broken, or that does not fit the image's channels, is passed over, as browsers do.
"""

import io
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

PROFILE = "icc_profile"  # under which Pillow keeps an image's, in its `info`
SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's colour space -> the mode it is for
MOST_PROFILES = 64  # whose transforms are kept; a corpus has few different ones
GRID = 9  # levels of each channel at which a profile is compared with sRGB
NO_DIFFERENCE = 2  # levels of 255; by which two writings of sRGB itself differ


def to_srgb(image: Image.Image) -> Image.Image:
    """The image, which has no transparency, as RGB in sRGB; the profile is gone from its info."""
    profile = image.info.get(PROFILE)
    mode, transform = _transform(profile) if profile else ("RGB", None)
    fits = transform is not None and (mode == "CMYK") == (image.mode == "CMYK")
    rgb = transform.apply(_as(image, mode)) if transform and fits else _as(image, "RGB")
    rgb.info.pop(PROFILE, None)  # who saves the pixels must not have them converted again
    return rgb


def _as(image: Image.Image, mode: str) -> Image.Image:
    """The image in that mode; itself where it is in it, so that pixels are not copied for nothing."""
    return image if image.mode == mode and type(image) is Image.Image else image.convert(mode)


@lru_cache(MOST_PROFILES)
def _transform(profile: bytes) -> "tuple[str, ImageCmsTransform | None]":
    """The mode that the profile is for, and its transform to sRGB; None where there is nothing to do."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = SPACES.get(source.profile.xcolor_space, "")
        if not mode:
            return "RGB", None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return "RGB", None
    return mode, None if mode == "RGB" and _is_srgb(transform) else transform


def _is_srgb(transform: "ImageCmsTransform") -> bool:
    """Whether it leaves colours as they are, as the profiles of most images on the web do."""
    levels = np.linspace(0, 255, GRID).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(GRID, -1, 3)
    shown = np.asarray(transform.apply(Image.fromarray(colours)))
    return int(np.abs(shown.astype(int) - colours.astype(int)).max()) <= NO_DIFFERENCE
