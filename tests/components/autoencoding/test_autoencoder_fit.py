"""An autoencoder's fit: it learns to draw the images again, also from noisy latents; resumed, to the bit."""

import itertools

import numpy as np
import pytest
import torch

from components.autoencoding.config import AutoencoderFitConfig
from components.autoencoding.fit import fit_autoencoder
from components.autoencoding.perceptual import PerceptualDistance
from components.conditioning.autoencoder import from_pixels
from components.toyworld.layout import draw_scene
from components.toyworld.render import render
from components.training.checkpoints import Checkpoints
from components.training.config import OptimizerConfig, TrainingConfig

SIDE, IMAGES = 16, 64
CONFIG = AutoencoderFitConfig(
    model="fit",
    channels=12,
    widths=(8, 16, 32),
    decoder_blocks=1,
    training=TrainingConfig(
        images=2_400,
        batch_size=16,
        optimizer=OptimizerConfig(warmup_images=160),
        checkpoint_images=1_200,
        ema_halflife_images=200,
    ),
)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    scenes = [draw_scene(np.random.default_rng(seed)) for seed in range(IMAGES)]
    return from_pixels(np.stack([np.asarray(render(scene, SIDE)) for scene in scenes]))


def batches_of(images: torch.Tensor):
    def batches(seen: int):
        for step in itertools.count(seen // 16):
            rows = [(step * 16 + row) % len(images) for row in range(16)]
            yield {"images": images[rows], "keys": [str(row) for row in rows], "epochs": [step] * 16}

    return batches


def test_images_come_back_also_from_noisy_latents(images):
    autoencoder = fit_autoencoder(batches_of(images), CONFIG, seed=0)
    latents = autoencoder.encode(images)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    mean_image_error = (images - images.mean(0)).square().mean()
    assert (autoencoder.decode(latents) - images).square().mean() < 0.1 * mean_image_error
    assert (autoencoder.decode(latents + 0.3 * noise) - images).square().mean() < 0.2 * mean_image_error


def test_a_weight_on_what_the_captioner_sees_makes_it_see_less_difference(images, small_captioner):
    distance = PerceptualDistance(small_captioner)

    def seen(weight: float) -> float:
        """By fits of two seeds: one of so few images comes out by chance."""
        config = CONFIG.model_copy(update={"perceptual": weight})
        fits = [fit_autoencoder(batches_of(images), config, seed=n, perceptual=distance) for n in (0, 1)]
        return sum(float(distance(fit.decode(fit.encode(images)), images)) for fit in fits)

    assert seen(1.0) < 0.8 * seen(0.0)
    with pytest.raises(ValueError, match=r"weight of 1\.0 needs a perceptual distance"):
        fit_autoencoder(batches_of(images), CONFIG.model_copy(update={"perceptual": 1.0}), seed=0)


class Killed(Exception):
    pass


def test_a_resumed_fit_is_the_uninterrupted_one(images, tmp_path):
    def killed_after(images_seen):
        def on_batch(count, loss):
            seen.append(count)
            if sum(seen) >= images_seen:
                raise Killed

        seen: list[int] = []
        return on_batch

    whole = fit_autoencoder(batches_of(images), CONFIG, seed=0)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Killed):
        fit_autoencoder(
            batches_of(images), CONFIG, seed=0, checkpoints=checkpoints, on_batch=killed_after(1_600)
        )
    resumed = fit_autoencoder(batches_of(images), CONFIG, seed=0, checkpoints=checkpoints)
    assert resumed.identity == whole.identity


def test_a_card_keeps_what_loading_needs_and_nothing_of_the_fit():
    assert CONFIG.card.model_dump() == {
        "model": "fit", "channels": 12, "widths": (8, 16, 32), "decoder_blocks": 1,
    }  # fmt: skip
