"""Autoencoders: pixels are the identity, and the network's range is that of 8-bit pixels."""

from pathlib import Path

import numpy as np
import torch

from components.conditioning.autoencoder import (
    from_pixels,
    load_autoencoder,
    to_pixels,
)
from components.conditioning.config import AutoencoderConfig


def test_the_autoencoder_of_pixels_changes_nothing():
    pixels = load_autoencoder(AutoencoderConfig(), Path("nowhere"))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(pixels.encode(images), images) and torch.equal(pixels.decode(images), images)
    assert pixels.identity == "pixels"
    assert (pixels.channels, pixels.downscale) == (3, 1)


def test_pixels_come_back_through_the_network_s_range():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    x = from_pixels(pixels)
    assert (x.shape, x.min().item(), x.max().item()) == ((1, 3, 16, 16), -1.0, 1.0)
    assert np.array_equal(to_pixels(x), pixels)
    beyond = torch.tensor([-7.0, -1.0, 0.0, 1.0, 7.0]).view(1, 1, 1, 5)
    assert to_pixels(beyond).ravel().tolist() == [0, 0, 128, 255, 255]
