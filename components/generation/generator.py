"""The Generator: prompts to images, from any model folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.conditioning.autoencoder import to_pixels
from components.diffusion.config import CONSISTENCY_SAMPLER, SamplerConfig
from components.diffusion.denoiser import conditioned
from components.diffusion.guidance import guided
from components.diffusion.mean_flow import mean_flow
from components.diffusion.samplers import make_sampler, noise_of
from components.diffusion.times import even_times
from components.errors import InputError
from components.generation.model_folder import Model, load_model
from components.image_size import ImageSize
from components.precision import Precision, autocast, resolve_precision
from components.randomness import SampleSeed, sample_seeds

if TYPE_CHECKING:
    from components.upsampling.prompt_upsampler import UpsampledPrompt

BATCH = 64  # images that are generated together, by default
MAX_STEPS = 1000
MAX_GUIDANCE = 100.0


class Generator:
    """Generates with one model. The same prompt, seed, index and settings give the same image."""

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

    @property
    def sizes(self) -> tuple[ImageSize, ...]:
        """Of images that it was trained to generate, in pixels; the first by default."""
        return self.model.sizes

    @property
    def sampler(self) -> SamplerConfig:
        """The model's own."""
        return CONSISTENCY_SAMPLER if self.model.card.is_student else self.model.card.sampler

    def generate(
        self,
        prompts: Sequence[str],
        *,
        steps: int | None = None,
        seed: int = 0,
        guidance: float | None = None,
        sampler: SamplerConfig | None = None,
        size: ImageSize | None = None,
        first: int = 0,
    ) -> npt.NDArray[np.uint8]:
        """One image per prompt, (N, H, W, 3). Image i starts from the noise of (seed, first + i).

        steps, guidance, sampler, size: the model's own by default. The prompts are taken as they are;
        `upsample` gives longer ones. Raises InputError for steps or guidance out of range, for guidance other
        than the absorbed one of a student, and for a sampler or a size that the model cannot use.
        """
        seeds = sample_seeds(seed, len(prompts), first)
        return self.generate_each(prompts, seeds, steps=steps, guidance=guidance, sampler=sampler, size=size)

    def generate_each(
        self,
        prompts: Sequence[str],
        seeds: Sequence[SampleSeed],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: SamplerConfig | None = None,
        size: ImageSize | None = None,
    ) -> npt.NDArray[np.uint8]:
        """As `generate`, each image from the noise of its own (seed, index): one batch of many requests."""
        steps = self.model.card.steps if steps is None else steps
        if not 1 <= steps <= MAX_STEPS:
            raise InputError(f"steps is {steps}; it must be 1 to {MAX_STEPS}")
        scale, sampler, size = self._guidance_scale(guidance), self._usable(sampler), self.model.size_of(size)
        batches = [
            self._generate_batch(
                prompts[at : at + self.batch_size],
                steps,
                seeds[at : at + self.batch_size],
                scale,
                sampler,
                size,
            )
            for at in range(0, len(prompts), self.batch_size)
        ]
        empty = np.zeros((0, *size, 3), np.uint8)
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
        self,
        prompts: Sequence[str],
        steps: int,
        seeds: Sequence[SampleSeed],
        scale: float,
        sampler: SamplerConfig,
        size: ImageSize,
    ) -> Tensor:
        """Images (B, 3, H, W) in about [-1, 1]."""
        encoder, card = self.model.encoder, self.model.card
        denoiser, downscale = self.model.denoiser, self.model.autoencoder.downscale
        times = torch.tensor(card.times[steps]) if steps in card.times else even_times(steps)
        shape = (card.dit.channels, size.height // downscale, size.width // downscale)
        noise = noise_of(seeds, shape, "noise").to(self.device)
        text, null = encoder(prompts).to(self.device), encoder([""]).to(self.device)
        with torch.no_grad(), autocast(self.precision, self.device):
            if card.kind == "mean_flow":
                latents = mean_flow(denoiser, self.model.network, text, noise, times)
                return self.model.autoencoder.decode(latents)
            if card.is_student:
                of_text = conditioned(denoiser, text)
            else:
                interval, rescale = sampler.guidance_interval, sampler.guidance_rescale
                of_text = guided(denoiser, text, null, scale, interval=interval, rescale=rescale)
            latents = make_sampler(sampler)(
                of_text, noise, times, lambda step: noise_of(seeds, shape, f"{sampler.name}-{step}")
            )
            return self.model.autoencoder.decode(latents)

    def _usable(self, requested: SamplerConfig | None) -> SamplerConfig:
        """The requested sampler if the model can use it; the model's own by default."""
        own = self.sampler
        if requested is None:
            return own
        if self.model.card.is_student and requested != own:
            raise InputError(
                "this model was distilled, its guidance absorbed, and generates in one way only; leave the"
                " sampler's settings out, or take its teacher"
            )
        if not self.model.card.is_student and requested.name == CONSISTENCY_SAMPLER.name:
            raise InputError("sampler consistency is for a distilled model, and this is none; take another")
        return requested

    def _guidance_scale(self, requested: float | None) -> float:
        """The requested scale if the model can use it; the model's own by default."""
        own = self.model.card.guidance or 1.0
        if requested is None:
            return own
        if self.model.card.is_student and requested != own:
            raise InputError(f"this model absorbed guidance {own:g}; it cannot generate with {requested:g}")
        if not 0 <= requested <= MAX_GUIDANCE:
            raise InputError(f"guidance is {requested:g}; it must be 0 to {MAX_GUIDANCE:g}")
        return requested
