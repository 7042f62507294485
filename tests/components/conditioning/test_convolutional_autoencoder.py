"""The convolutional autoencoder: its latents lie on a sphere, and a saved one is the same."""

import pytest
import torch

from components.conditioning.autoencoder import load_autoencoder
from components.conditioning.config import AutoencoderConfig
from components.conditioning.convolutional_autoencoder import ConvolutionalAutoencoder
from components.randomness import seeded_weights

SMALL = AutoencoderConfig(model="fit", channels=6, widths=(8, 16, 24), decoder_blocks=1)


def small(seed: int = 0) -> ConvolutionalAutoencoder:
    with seeded_weights(seed, "autoencoder"):
        return ConvolutionalAutoencoder(SMALL).eval()


def test_latents_have_mean_square_one_at_every_place():
    latents = small().encode(torch.randn(3, 3, 16, 12))
    assert latents.shape == (3, 6, 4, 3)
    assert torch.allclose(latents.square().mean(1), torch.ones(3, 4, 3), atol=1e-3)


@pytest.mark.parametrize("widths", [(4, 8), (4, 8, 12), (4, 8, 12, 16), (4, 8, 12, 16, 20)])
def test_every_width_after_the_first_halves_the_side(widths):
    config = AutoencoderConfig(model="fit", channels=5, widths=widths)
    autoencoder = ConvolutionalAutoencoder(config)
    images = torch.randn(1, 3, 32, 32)
    latents = autoencoder.encode(images)
    assert latents.shape[2] == 32 // config.downscale == 32 // 2 ** (len(widths) - 1)
    assert autoencoder.decode(latents).shape == images.shape


def test_a_saved_one_draws_the_same_and_has_the_same_identity(tmp_path):
    autoencoder = small()
    autoencoder.save(tmp_path)
    loaded = load_autoencoder(SMALL, tmp_path)
    latents = torch.randn(2, 6, 4, 4)
    assert torch.equal(loaded.decode(latents), autoencoder.decode(latents))
    assert loaded.identity == autoencoder.identity != small(seed=1).identity
    assert (loaded.channels, loaded.downscale) == (6, 4)


def test_missing_weights_are_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_autoencoder(SMALL, tmp_path)
