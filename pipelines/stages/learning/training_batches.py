"""The data of train and distill: the shards' records as batches of the loop, and their captions.

Imports torch, so the stages import it when they run.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from components.captioning.kinds import captions_of
from components.conditioning.autoencoder import Autoencoder, PixelAutoencoder, from_pixels
from components.conditioning.feature_cache import FeatureCache
from components.conditioning.text import TextEncoder, TextTokens
from components.errors import InputError
from components.image_size import ImageSize
from components.shards.index import HOLDOUT, TRAIN, Split, load_index
from components.shards.loader import CaptionedImages, ShardLoader
from components.shards.reader import read_split
from components.shards.wanted_features import reading_features
from components.training.loss import Batch

VOCABULARY_CAPTIONS = 100_000  # that a vocabulary is fitted on, at most
LATENT_CACHE_BYTES = 2**29  # in each process
VALIDATION_IMAGES = 256  # of which the loss is measured while a teacher trains


def captions(shards: Sequence[Path]) -> Iterator[str]:
    """Every caption of the training records, in shard order, up to VOCABULARY_CAPTIONS."""
    left = VOCABULARY_CAPTIONS
    for index in shards:
        for sample in read_split(index, TRAIN):
            for text in captions_of(sample.meta).values():
                if text and left:
                    left -= 1
                    yield str(text)
            if not left:
                return


def caption_loader(
    shards: Sequence[Path],
    config: Any,
    image_size: int,
    rank: int,
    world_size: int,
    split: Split = TRAIN,
    *,
    unit: int = 1,
) -> ShardLoader:
    """The exact-resume loader of one process over the shards of every snapshot.

    unit: pixels along a side of one patch. Raises InputError where those do not cover images of some bucket,
    and where no image to train on has the model's own size, at which models are evaluated.
    """
    loader = ShardLoader(
        shards,
        batch_size=config.batch_size,
        image_size=image_size,
        seed=config.seed,
        blend=config.blend,
        split=split,
        rank=rank,
        world_size=world_size,
        cache_mb=config.cache_mb,
    )
    for size in loader.sizes:
        if not size.divides_by(unit):
            raise InputError(
                f"the shards have a bucket of {size}, and the model's patches are {unit} pixels a side; set"
                f" shard.buckets to multiples of {unit}, or another patch"
            )
    if split == TRAIN and (square := ImageSize.square(image_size)) not in loader.sizes:
        raise InputError(
            f"the shards have images of {', '.join(map(str, loader.sizes))}, and none of {square}, the"
            f" model's own size, at which it is evaluated; add {square} to shard.buckets"
        )
    return loader


def batches(
    loader: ShardLoader, encoder: TextEncoder, autoencoder: Autoencoder, images_seen: int
) -> Iterator[Batch]:
    """The loader's batches as the losses want them: x_0 (latents), text and mask.

    Both are encoded on the device that this process trains on, one process a GPU; or read from the shards
    where they are precomputed, and then their encoder stays where it is.
    """
    device = PartialState().device
    loader = reading_features(loader, encoder, autoencoder)
    encoder = encoder if loader.texts else encoder.to(device)
    latents = LatentReader(autoencoder if loader.latents else autoencoder.to(device), device)
    for batch in loader.batches(images_seen):
        text = (
            encoder(batch.captions) if batch.texts is None else TextTokens.of_features(batch.texts).to(device)
        )
        yield {
            "x_0": latents(batch) if batch.latents is None else batch.latents.to(device, non_blocking=True),
            "text": text.values,
            "mask": text.mask,
            "keys": batch.keys,
            "epochs": batch.epochs,
        }


def count_held_out(shards: Sequence[Path]) -> int:
    """The records that no training sees."""
    return sum(load_index(index).samples(HOLDOUT) for index in shards)


def held_out_batches(
    shards: Sequence[Path],
    config: Any,
    encoder: TextEncoder,
    autoencoder: Autoencoder,
    image_size: int,
    rank: int,
    world_size: int,
) -> list[Batch]:
    """One process's share of VALIDATION_IMAGES held-out records, or of as many as there are, in batches.

    Of several sizes the first batches are taken, as a training would see them.
    """
    loader = caption_loader(shards, config, image_size, rank, world_size, HOLDOUT)
    count = max(1, min(loader.samples, VALIDATION_IMAGES) // config.batch_size)
    return list(islice(batches(loader, encoder, autoencoder, 0), count))


class LatentReader:
    """Batches of images to latents (B, C, h, w) on the device.

    Those of a fitted autoencoder are kept, each of one image alone: they are a function of the image (at one
    size), to the bit, whatever is beside it, so that a resumed training sees the same.
    """

    def __init__(self, autoencoder: Autoencoder, device: torch.device) -> None:
        self.autoencoder, self.device = autoencoder, device
        self.cache = FeatureCache(LATENT_CACHE_BYTES)

    @torch.no_grad()
    def __call__(self, batch: CaptionedImages) -> Tensor:
        images = from_pixels(batch.images)
        if isinstance(self.autoencoder, PixelAutoencoder):
            return images.to(self.device, non_blocking=True)
        latents = [self._latents(key, images[row : row + 1]) for row, key in enumerate(batch.keys)]
        return torch.cat(latents).to(self.device, non_blocking=True)

    def _latents(self, key: str, image: Tensor) -> Tensor:
        """Of one image, (1, C, h, w), on the CPU."""
        name = f"{key} {tuple(image.shape)}"  # a record of two snapshots may be in two buckets
        latents = self.cache.get(name)
        if latents is None:
            latents = self.autoencoder.encode(image.to(self.device)).cpu()
            self.cache.put(name, latents)
        return latents
