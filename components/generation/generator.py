"""The Generator: prompts to images, from any model folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.conditioning.autoencoder import to_pixels
from components.diffusion.denoiser import conditioned
from components.diffusion.guidance import guided
from components.diffusion.samplers import consistency, euler, noise_of
from components.diffusion.times import even_times
from components.errors import InputError
from components.generation.model_folder import Model, load_model
from components.precision import Precision, autocast, resolve_precision
from components.randomness import SampleSeed, sample_seeds

if TYPE_CHECKING:
    from components.upsampling.prompt_upsampler import UpsampledPrompt

BATCH = 64  # images that are generated together, by default
MAX_STEPS = 1000
MAX_GUIDANCE = 100.0


class Generator:
    """Generates with one model. The same (prompt, seed, index, steps, guidance) gives the same image."""

    def __init__(self, model: Model, batch_size: int = BATCH, precision: Precision = "no") -> None:
        self.model, self.batch_size = model, batch_size
        self.device = next(model.network.parameters()).device
        self.precision = resolve_precision(precision, self.device)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str = "auto",
        batch_size: int = BATCH,
        precision: Precision = "no",
    ) -> "Generator":
        """Read a model folder onto `device`; "auto" takes a GPU where there is one.

        batch_size: images that are generated together. precision: see components/precision.py.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(load_model(Path(folder), device), batch_size, precision)

    @property
    def image_size(self) -> int:
        """Side of its square images, in pixels."""
        return self.model.image_size

    def generate(
        self,
        prompts: Sequence[str],
        *,
        steps: int | None = None,
        seed: int = 0,
        guidance: float | None = None,
        first: int = 0,
    ) -> npt.NDArray[np.uint8]:
        """One image per prompt, (N, H, W, 3). Image i starts from the noise of (seed, first + i).

        steps, guidance: the model's own by default. The prompts are taken as they are; `upsample` gives
        longer ones. Raises InputError for steps or guidance out of range, and for guidance other than the
        absorbed one of a consistency model.
        """
        seeds = sample_seeds(seed, len(prompts), first)
        return self.generate_each(prompts, seeds, steps=steps, guidance=guidance)

    def generate_each(
        self,
        prompts: Sequence[str],
        seeds: Sequence[SampleSeed],
        *,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> npt.NDArray[np.uint8]:
        """As `generate`, each image from the noise of its own (seed, index): one batch of many requests."""
        steps = self.model.card.steps if steps is None else steps
        if not 1 <= steps <= MAX_STEPS:
            raise InputError(f"steps is {steps}; it must be 1 to {MAX_STEPS}")
        scale = self._guidance_scale(guidance)
        batches = [
            self._generate_batch(
                prompts[at : at + self.batch_size], steps, seeds[at : at + self.batch_size], scale
            )
            for at in range(0, len(prompts), self.batch_size)
        ]
        empty = np.zeros((0, self.image_size, self.image_size, 3), np.uint8)
        return to_pixels(torch.cat(batches)) if batches else empty

    def upsample(self, prompts: Sequence[str], *, seed: int = 0, first: int = 0) -> "list[UpsampledPrompt]":
        """What to generate from for each prompt, as the model's upsampler finds; the prompt without one."""
        return self.upsample_each(prompts, sample_seeds(seed, len(prompts), first))

    def upsample_each(self, prompts: Sequence[str], seeds: Sequence[SampleSeed]) -> "list[UpsampledPrompt]":
        """As `upsample`, each caption sampled with the noise of its own (seed, index)."""
        from components.upsampling.prompt_upsampler import unchanged

        if self.model.upsampler is None:
            return unchanged(prompts)
        return self.model.upsampler.upsample_each(prompts, seeds)

    def _generate_batch(
        self, prompts: Sequence[str], steps: int, seeds: Sequence[SampleSeed], scale: float
    ) -> Tensor:
        """Images (B, 3, H, W) in about [-1, 1]."""
        denoiser, encoder, times = self.model.denoiser, self.model.encoder, even_times(steps)
        dit = self.model.card.dit
        shape = (dit.channels, dit.image_size, dit.image_size)
        noise = noise_of(seeds, shape, "noise").to(self.device)
        text, null = encoder(prompts).to(self.device), encoder([""]).to(self.device)
        with torch.no_grad(), autocast(self.precision, self.device):
            if self.model.card.kind == "consistency":
                latents = consistency(
                    conditioned(denoiser, text),
                    noise,
                    times,
                    lambda step: noise_of(seeds, shape, f"consistency-{step}"),
                )
            else:
                latents = euler(guided(denoiser, text, null, scale), noise, times)
            return self.model.autoencoder.decode(latents)

    def _guidance_scale(self, requested: float | None) -> float:
        """The requested scale if the model can use it; the model's own by default."""
        own = self.model.card.guidance or 1.0
        if requested is None:
            return own
        if self.model.card.kind == "consistency" and requested != own:
            raise InputError(f"this model absorbed guidance {own:g}; it cannot generate with {requested:g}")
        if not 0 <= requested <= MAX_GUIDANCE:
            raise InputError(f"guidance is {requested:g}; it must be 0 to {MAX_GUIDANCE:g}")
        return requested
