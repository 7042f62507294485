"""Fits a small autoencoder on images, by the one training loop."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from components.autoencoding.config import AutoencoderFitConfig
from components.autoencoding.perceptual import PerceptualDistance
from components.conditioning.convolutional_autoencoder import ConvolutionalAutoencoder
from components.randomness import seeded_weights
from components.training.checkpoints import Checkpoints
from components.training.loop import train
from components.training.loss import Batch, LossContext, Losses, LossFunction

CHARBONNIER = 1e-3  # squared; below it an error counts by its square, above it by its size


def fit_autoencoder(
    batches: Callable[[int], Iterator[Batch]],
    config: AutoencoderFitConfig,
    *,
    seed: int,
    perceptual: PerceptualDistance | None = None,
    checkpoints: Checkpoints | None = None,
    on_batch: Callable[[int, float], None] | None = None,
) -> ConvolutionalAutoencoder:
    """Train on batches of `images` (B, 3, H, W) in [-1, 1], as the training loop takes them.

    perceptual: needed where its weight in the config is not 0; ValueError without. Raises FloatingPointError
    when the fit diverges.
    """
    with seeded_weights(seed, "autoencoder"):
        model = ConvolutionalAutoencoder(config.card)
    trained = train(
        model,
        reconstruction_loss(config, model.downscale, perceptual),
        batches,
        config.training,
        seed=seed,
        purpose="autoencoder",
        checkpoints=checkpoints,
        on_batch=on_batch,
    )
    assert isinstance(trained.ema, ConvolutionalAutoencoder)
    return trained.ema.cpu().eval().requires_grad_(False)


def reconstruction_loss(
    config: AutoencoderFitConfig, downscale: int, perceptual: PerceptualDistance | None
) -> LossFunction:
    """The distances of images from their reconstructions, through latents with noise.

    The noise of each image has a standard deviation of its own, uniform from 0 to `config.noise`. Pixels are
    compared by Charbonnier's distance, sqrt(d² + 1e-3): its minimum is near the median, so edges stay sharp
    where a mean would blur. The perceptual distance is added with its weight.
    """
    if config.perceptual and perceptual is None:
        raise ValueError(f"a perceptual weight of {config.perceptual} needs a perceptual distance")
    weighed = perceptual if config.perceptual else None

    def loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
        images: Tensor = batch["images"]
        shape = (config.channels, images.shape[2] // downscale, images.shape[3] // downscale)
        spread = config.noise * context.noise.uniform("spread").view(-1, 1, 1, 1)
        again = model(images, spread * context.noise.normal("latents", shape))
        pixels = torch.sqrt((again - images).square() + CHARBONNIER).mean()
        return Losses(pixels + config.perceptual * weighed(again, images) if weighed else pixels)

    return loss
