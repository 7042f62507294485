"""Which stored features a training reads in place of computing them. Imports torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.conditioning.autoencoder import Autoencoder
from components.conditioning.diffusers_autoencoder import DiffusersAutoencoder
from components.conditioning.frozen_text import PretrainedText
from components.shards.loader import ShardLoader
from components.shards.stored_features import Features, features_of, usable


def wanted_features(encoder: Any, autoencoder: Autoencoder, image_size: int) -> Features:
    """What a training computes of its samples with pretrained encoders. image_size: in pixels."""
    return Features(
        latents=autoencoder.stored(image_size) if isinstance(autoencoder, DiffusersAutoencoder) else None,
        texts=encoder.stored if isinstance(encoder, PretrainedText) else None,
    )


def check_features(
    shards: Sequence[Path], encoder: Any, autoencoder: Autoencoder, image_size: int
) -> Features:
    """What a training's pretrained encoders are. Raises InputError where the shards hold other features."""
    wanted = wanted_features(encoder, autoencoder, image_size)
    usable(features_of(shards), wanted)
    return wanted


def reading_features(loader: ShardLoader, encoder: Any, autoencoder: Autoencoder) -> ShardLoader:
    """The loader, giving what the shards hold of that. Raises InputError as check_features."""
    wanted = wanted_features(encoder, autoencoder, loader.image_size)
    latents, texts = usable(loader.stored, wanted)
    return loader.reading(latents=latents, texts=texts)
