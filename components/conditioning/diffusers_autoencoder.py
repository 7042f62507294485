"""A pretrained autoencoder of diffusers as the DiT's: AutoencoderKL, AutoencoderDC and others of images."""

import errno
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from components.conditioning.config import AutoencoderConfig
from components.conditioning.diffusers_model import CONFIG, PROVENANCE, WEIGHTS, read_diffusers_model
from components.conditioning.hub import find_model
from components.conditioning.identity import FeatureIdentity, digest, parts_of_weights, refuse_non_finite
from components.errors import InputError

FOLDER = "autoencoder"  # in a model folder
KIND = "Autoencoder"  # how the names of its classes begin
OF_PIPELINE = "vae"  # where it lies in the folder of a whole pipeline
FILES = [f"{at}{name}" for at in ("", f"{OF_PIPELINE}/") for name in (CONFIG, f"{WEIGHTS}*.safetensors*")]
Precision = Literal["float32", "bfloat16", "float16"]


class DiffusersAutoencoder:
    """Images to latents of about unit size and back, by a frozen autoencoder; see Autoencoder.

    Latents are the mode of the posterior (its mean), shifted and scaled as the model's config says, so they
    are a function of the image. Each image goes through alone, and outside of autocast: what it becomes
    depends on nothing beside it, and a decoder that needs float32 has it.

    source, revision: what it was loaded by, and the commit of an id.
    """

    def __init__(self, model: Any, source: str, revision: str | None) -> None:
        self.model, self.source, self.revision = model, source, revision
        refuse_non_finite(model.state_dict(), f"autoencoder '{source}'")
        self.dtype: torch.dtype = model.dtype
        settings = model.config
        self.channels = int(settings["latent_channels"])
        widths = settings.get("encoder_block_out_channels") or settings["block_out_channels"]
        self.downscale = int(2 ** (len(widths) - 1))

    @classmethod
    def load(
        cls, model: str, revision: str | None = None, dtype: Precision = "float32"
    ) -> "DiffusersAutoencoder":
        """Read one by id or path: of its own folder, or of a pipeline's that has it in `vae`.

        Only safetensors are read. Raises InputError, one line, where there is none, or it is not of images.
        """
        found, commit = find_model(f"autoencoder '{model}'", model, revision, files=FILES)
        nested = found / OF_PIPELINE
        folder = nested if not (found / CONFIG).is_file() and nested.is_dir() else found
        loaded = read_diffusers_model(folder, KIND, getattr(torch, dtype), f"autoencoder '{model}'")
        lacking = {"latent_channels", "scaling_factor"} - loaded.config.keys()
        if lacking or loaded.config.get("in_channels", 3) != 3:
            raise InputError(
                f"autoencoder '{model}' is a {type(loaded).__name__}, whose latents are not of RGB images, or"
                " have no scaling_factor; take an AutoencoderKL or AutoencoderDC"
            )
        return cls(loaded, model, commit)

    @cached_property
    def digest(self) -> str:
        settings = {key: value for key, value in self.model.config.items() if key != PROVENANCE}
        text = json.dumps([type(self.model).__name__, settings], sort_keys=True, default=str)
        return digest(text.encode(), *parts_of_weights(self.model.state_dict()))

    @property
    def identity(self) -> str:
        return f"diffusers:{self.digest}"

    def stored(self, image_size: int) -> FeatureIdentity:
        """What is written beside stored latents of it. image_size: side of the images, pixels."""
        return FeatureIdentity(
            model=self.source,
            revision=self.revision,
            digest=self.digest,
            dtype=str(self.dtype).removeprefix("torch."),
            size=image_size,
        )

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, C, h, w) in float32, every value one of the model's dtype."""
        return self._each(images, self._encode)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) of latents, in float32."""
        return self._each(latents, self._decode)

    def to(self, device: torch.device) -> "DiffusersAutoencoder":
        self.model.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Save it with the model trained on it, so that it needs nothing else."""
        self.model.register_to_config(**{PROVENANCE: ""})
        self.model.save_pretrained(folder / FOLDER, safe_serialization=True)

    def _each(self, batch: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.autocast(batch.device.type, enabled=False):
            return torch.cat([function(one.to(self.dtype)).float() for one in batch.split(1)])

    def _encode(self, image: Tensor) -> Tensor:
        output = self.model.encode(image)
        if hasattr(output, "latent_dist"):
            latents = output.latent_dist.mode()
        else:
            latents = output.latent if hasattr(output, "latent") else output.latents
        mean, scale = self._scaling(latents)
        return ((latents.float() - mean) * scale).to(self.dtype)

    def _decode(self, latents: Tensor) -> Tensor:
        mean, scale = self._scaling(latents)
        decoded: Tensor = self.model.decode((latents.float() / scale + mean).to(self.dtype)).sample
        return decoded

    def _scaling(self, latents: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """What is subtracted of raw latents, and what they are then multiplied by; by channel where given."""
        settings = self.model.config
        scale = float(settings["scaling_factor"])
        mean, std = settings.get("latents_mean"), settings.get("latents_std")
        if mean is None or std is None:
            return float(settings.get("shift_factor") or 0.0), scale
        by_channel = [torch.tensor(x, device=latents.device).view(1, -1, 1, 1) for x in (mean, std)]
        return by_channel[0], scale / by_channel[1]


def load_diffusers_autoencoder(config: AutoencoderConfig, folder: Path | None = None) -> DiffusersAutoencoder:
    """The autoencoder that a config names; with a model folder, the one that was saved in it.

    Raises InputError where there is none such, FileNotFoundError where nothing was saved.
    """
    if folder is None:
        return DiffusersAutoencoder.load(config.model, config.revision, config.dtype)
    if not (saved := folder / FOLDER).is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(saved))
    return DiffusersAutoencoder.load(str(saved), None, config.dtype)
