"""What the shard stage precomputes of a sample. Imports torch, so the stage imports it when it does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from components.captioning.kinds import captions_of
from components.conditioning.autoencoder import from_pixels
from components.conditioning.config import LatentsConfig, TextConfig
from components.conditioning.diffusers_autoencoder import DiffusersAutoencoder
from components.conditioning.frozen_text import PretrainedText
from components.conditioning.text import load_pretrained_text
from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.errors import InputError
from components.image_size import ImageSize
from components.shards.decode import decode
from components.shards.stored_features import NO_CAPTION, Features, pack_latent, pack_texts
from components.shards.writer import LATENT_EXTENSION, TEXT_EXTENSION, Sample


@dataclass(frozen=True)
class Encoders:
    """What turns a sample into its stored features.

    image_size: side of the square that latents are of, where a sample is of no bucket.
    """

    autoencoder: DiffusersAutoencoder | None
    image_size: int
    text: PretrainedText | None
    device: torch.device

    @classmethod
    def load(
        cls,
        latents: LatentsConfig | None,
        texts: TextConfig | None,
        device: str,
        buckets: Sequence[ImageSize] = (),
    ) -> "Encoders":
        """Those that the configs name. Raises InputError, one line, where there is none such.

        Also where the autoencoder cannot encode images of some bucket.
        """
        place = torch.device(device)
        autoencoder = _autoencoder(latents) if latents else None
        text = load_pretrained_text(texts) if texts else None
        if latents and autoencoder and latents.image_size % autoencoder.downscale:
            raise InputError(
                f"shard.latents.image_size is {latents.image_size}, and '{latents.model}' needs a multiple of"
                f" {autoencoder.downscale}"
            )
        for bucket in buckets:
            if autoencoder and not bucket.divides_by(autoencoder.downscale):
                raise InputError(
                    f"shard.buckets has {bucket}, and sides must be multiples of {autoencoder.downscale} for"
                    " the latents of shard.latents"
                )
        return cls(
            autoencoder.to(place) if autoencoder else None,
            latents.image_size if latents else 0,
            text.to(place) if text else None,
            place,
        )

    @property
    def features(self) -> Features:
        """What they are, for the index."""
        return Features(
            latents=self.autoencoder.stored(self.image_size) if self.autoencoder else None,
            texts=self.text.stored if self.text else None,
        )

    @torch.no_grad()
    def of(self, sample: Sample, bucket: ImageSize | None = None) -> dict[str, bytes] | Rejection:
        """The files of a sample's features by extension, or why there are none.

        Raises InputError where features are not finite: their dtype is too small for the encoder.
        """
        files: dict[str, bytes] = {}
        if self.autoencoder:
            try:
                pixels = decode(sample.image, bucket or ImageSize.square(self.image_size))
            except InputError as error:
                return Rejection(Reason.IMAGE_BROKEN, str(error))
            (latent,) = self.autoencoder.encode(from_pixels(np.array(pixels)[None]).to(self.device))
            _refuse_non_finite({"latents": latent}, sample.key)
            stored = self.autoencoder.stored(self.image_size)
            files[LATENT_EXTENSION] = pack_latent(latent, stored.dtype)
        if self.text:
            captions = {kind: text for kind, text in captions_of(sample.meta).items() if text}
            encoded = {kind: self.text.encode(text) for kind, text in (captions or {NO_CAPTION: ""}).items()}
            _refuse_non_finite(encoded, sample.key)
            files[TEXT_EXTENSION] = pack_texts(encoded, self.text.stored.dtype)
        return files


def _autoencoder(config: LatentsConfig) -> DiffusersAutoencoder:
    return DiffusersAutoencoder.load(config.model, config.revision, config.dtype)


def _refuse_non_finite(features: Mapping[str, torch.Tensor], key: str) -> None:
    for name, values in features.items():
        if not bool(values.isfinite().all()):
            raise InputError(
                f"shard: the {name} features of sample {key} are not finite in {values.dtype}; set a larger"
                " dtype in shard.latents or shard.texts (bfloat16, float32)"
            )
