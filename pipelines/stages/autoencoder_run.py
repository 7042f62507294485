"""The autoencoder of a trained model: none, or one fitted on the training records' images.

Imports torch, so the stage imports it when it runs.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from components.autoencoding.config import AutoencoderFitConfig
from components.autoencoding.fit import fit_autoencoder
from components.autoencoding.perceptual import PerceptualDistance
from components.captioning.captioner import Captioner
from components.conditioning.autoencoder import Autoencoder, PixelAutoencoder, from_pixels
from components.conditioning.config import PIXELS
from components.training.loss import Batch
from pipelines.stage import Work
from pipelines.stages.fit_beside import fit_beside
from pipelines.stages.model_runtime import captioner_folder
from pipelines.stages.training_run import caption_loader


def make_autoencoder(work: Work, shards: Sequence[Path]) -> Autoencoder:
    """The autoencoder that train's config names.

    Raises StageFailed when its fit diverges, InputError where the captioner does not show its features.
    """
    config: AutoencoderFitConfig = work.config.autoencoder
    if config.model == PIXELS:
        return PixelAutoencoder()
    loader = caption_loader(
        shards,
        work.config.model_copy(update={"batch_size": config.training.batch_size}),
        work.config.network.image_size * config.downscale,
        rank=0,
        world_size=1,
    )

    def batches(images_seen: int) -> Iterator[Batch]:
        for batch in loader.batches(images_seen):
            yield {"images": from_pixels(batch.images), "keys": batch.keys, "epochs": batch.epochs}

    perceptual = None
    if config.perceptual:
        perceptual = PerceptualDistance(Captioner.load(captioner_folder(work.inputs["annotators"][0])))
    fit = partial(fit_autoencoder, batches, config, perceptual=perceptual)
    return fit_beside(work, "autoencoder", config.training.images, "images", fit)
