"""The autoencoder of a trained model: none, or one fitted on the training records' images.

Imports torch, so the stage imports it when it runs.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from components.autoencoding.config import AutoencoderFitConfig
from components.autoencoding.fit import fit_autoencoder
from components.conditioning.autoencoder import Autoencoder, PixelAutoencoder, from_pixels
from components.conditioning.config import PIXELS
from components.shards.loader import ShardLoader
from components.training.loss import Batch
from pipelines.errors import StageFailed
from pipelines.stage import Work
from pipelines.store.faults import checkpoints_at


def make_autoencoder(work: Work, shards: Sequence[Path]) -> Autoencoder:
    """The autoencoder that train's config names. Raises StageFailed when its fit diverges."""
    config: AutoencoderFitConfig = work.config.autoencoder
    if config.model == PIXELS:
        return PixelAutoencoder()
    training = config.training
    loader = ShardLoader(
        shards,
        batch_size=training.batch_size,
        image_size=work.config.network.image_size * config.downscale,
        seed=work.config.seed,
        blend=work.config.blend,
        cache_mb=work.config.cache_mb,
    )

    def batches(images_seen: int) -> Iterator[Batch]:
        for batch in loader.batches(images_seen):
            yield {"images": from_pixels(batch.images), "keys": batch.keys, "epochs": batch.epochs}

    with work.progress.task("autoencoder", training.images, "images") as advance:
        try:
            return fit_autoencoder(
                batches,
                config,
                seed=work.config.seed,
                checkpoints=checkpoints_at(work.scratch / "autoencoder", "autoencoder"),
                on_batch=lambda images, loss: advance(images, f"loss {loss:.3f}"),
            )
        except FloatingPointError as error:
            raise StageFailed(f"train.autoencoder: {error}") from error
