"""Images as the DiT sees them: an autoencoder's latents. Of pixels, which come first, they are the image.

An autoencoder is named by AutoencoderConfig, in train's config and in a model's card; another kind is an
entry of `load_autoencoder`.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.conditioning.config import PIXELS, AutoencoderConfig
from components.conditioning.convolutional_autoencoder import ConvolutionalAutoencoder
from components.conditioning.diffusers_autoencoder import load_diffusers_autoencoder


class Autoencoder(Protocol):
    """Images (B, 3, H, W) in [-1, 1] to latents (B, C, H / downscale, W / downscale) of about unit size.

    identity: what it is, down to its weights; latents of two identities do not mix.
    """

    @property
    def identity(self) -> str: ...

    @property
    def channels(self) -> int: ...

    @property
    def downscale(self) -> int: ...

    def encode(self, images: Tensor) -> Tensor:
        """Latents of images, scaled as the DiT is trained on them."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents; beyond [-1, 1] where the latents are."""
        ...

    def to(self, device: torch.device) -> "Autoencoder":
        """With its weights on `device`."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load_autoencoder` reads into a model folder."""
        ...


class PixelAutoencoder:
    """The identity: the DiT works on pixels."""

    identity = "pixels"
    channels, downscale = 3, 1

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def to(self, device: torch.device) -> "PixelAutoencoder":
        return self

    def save(self, folder: Path) -> None:
        """There is nothing to write."""


def load_autoencoder(config: AutoencoderConfig, folder: Path) -> Autoencoder:
    """The autoencoder that a model's card names; its weights lie in the model's folder.

    Raises FileNotFoundError where they are missing, SafetensorError or RuntimeError where those of a fitted
    one do not fit; InputError where a pretrained one cannot be read.
    """
    if config.model == PIXELS:
        return PixelAutoencoder()
    if config.pretrained:
        return load_diffusers_autoencoder(config, folder)
    return ConvolutionalAutoencoder.load(config, folder)


def from_pixels(images: npt.NDArray[np.uint8]) -> Tensor:
    """(B, H, W, C) in 0..255 -> (B, C, H, W) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Tensor) -> npt.NDArray[np.uint8]:
    """(B, C, H, W) in [-1, 1] -> (B, H, W, C) in 0..255, clipped."""
    scaled = (images.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
