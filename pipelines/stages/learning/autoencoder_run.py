"""The autoencoder of a trained model: none, a pretrained one, or one fitted on the training records' images.

Imports torch, so the stage imports it when it runs.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from components.autoencoding.config import AutoencoderFitConfig
from components.autoencoding.fit import fit_autoencoder
from components.autoencoding.perceptual import PerceptualDistance
from components.captioning.captioner import Captioner
from components.conditioning.autoencoder import Autoencoder, PixelAutoencoder, from_pixels
from components.conditioning.config import PIXELS
from components.conditioning.diffusers_autoencoder import load_diffusers_autoencoder
from components.training.loss import Batch
from pipelines.stage import Work
from pipelines.stages.learning.fit_beside import fit_together
from pipelines.stages.learning.training_batches import caption_loader
from pipelines.stages.model_runtime import captioner_folder


def make_autoencoder(work: Work, shards: Sequence[Path]) -> Autoencoder:
    """The autoencoder that train's config names.

    Raises StageFailed when its fit diverges; InputError where the pretrained one cannot be loaded, or the
    captioner does not show its features.
    """
    config: AutoencoderFitConfig = work.config.autoencoder
    if config.model == PIXELS:
        return PixelAutoencoder()
    if config.pretrained:
        return load_diffusers_autoencoder(config)
    captioner = captioner_folder(work.inputs["annotators"][0]) if config.perceptual else None
    fit = partial(_fit, shards, work.config, captioner)
    return fit_together(work, "autoencoder", config.training, fit)


def _fit(
    shards: Sequence[Path], config: Any, captioner: str | None, rank: int, world_size: int, **loop: Any
) -> Autoencoder:
    """One process's part of the fit. config: train's; captioner: its folder; loop: see fit_autoencoder."""
    fit: AutoencoderFitConfig = config.autoencoder
    loader = caption_loader(
        shards,
        config.model_copy(update={"batch_size": fit.training.batch_size}),
        config.network.image_size * fit.downscale,
        rank,
        world_size,
        unit=config.network.patch * fit.downscale,
    )

    def batches(images_seen: int) -> Iterator[Batch]:
        for batch in loader.batches(images_seen):
            yield {"images": from_pixels(batch.images), "keys": batch.keys, "epochs": batch.epochs}

    perceptual = PerceptualDistance(Captioner.load(captioner)) if captioner is not None else None
    return fit_autoencoder(batches, fit, perceptual=perceptual, **loop)
