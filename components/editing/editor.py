"""The Editor: images from images and prompts, by a model that never learned to (Song 2023, Algorithm 4).

    noise the start ─▶ predict x_0 ─▶ put the known part back ─▶ add less noise ─▶ predict x_0 ─▶ …

Of a consistency model the prediction is its consistency function; of a flow model it is its estimate of x_0,
guided, which is blurred where there is much noise, so that it wants more steps.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.conditioning.autoencoder import Autoencoder, to_pixels
from components.diffusion.denoiser import ConditionedDenoiser, conditioned
from components.diffusion.guidance import guided
from components.diffusion.samplers import noise_of
from components.diffusion.times import even_times
from components.editing.edits import Edit
from components.errors import InputError
from components.generation.generator import BATCH, MAX_STEPS
from components.generation.model_folder import Model
from components.randomness import SampleSeed


class Editor:
    """Edits with one model. The same (edit, caption, seed, index, steps) gives the same image."""

    def __init__(self, model: Model, batch_size: int = BATCH) -> None:
        self.model, self.batch_size = model, batch_size
        self.device = next(model.network.parameters()).device

    def edit(
        self,
        edits: Sequence[Edit],
        captions: Sequence[str],
        seeds: Sequence[SampleSeed],
        *,
        steps: int | None = None,
    ) -> npt.NDArray[np.uint8]:
        """One image per edit, (N, H, W, 3): of its caption, from the noise of its (seed, index).

        steps: evaluations of the network, guided ones count once; by default the first edit's, or the model's
        own where these are more. Guidance is the model's own. Raises InputError for steps out of range and
        for images of another size than the model's.
        """
        size = self.model.image_size
        for edit in edits:
            if edit.start.shape != (3, size, size):
                _, height, width = edit.start.shape
                raise InputError(f"an image is {width}x{height} pixels, and this model's are {size}x{size}")
        steps = self.steps_of(edits, steps)
        batches = [
            self._edit_batch(
                edits[at : at + self.batch_size],
                captions[at : at + self.batch_size],
                seeds[at : at + self.batch_size],
                steps,
            )
            for at in range(0, len(edits), self.batch_size)
        ]
        return to_pixels(torch.cat(batches)) if batches else np.zeros((0, size, size, 3), np.uint8)

    def steps_of(self, edits: Sequence[Edit], steps: int | None) -> int:
        """The steps of `edit` with these arguments. Raises InputError for steps out of range."""
        if steps is None:
            return max([self.model.card.steps, *(edit.steps for edit in edits[:1])])
        if not 1 <= steps <= MAX_STEPS:
            raise InputError(f"steps is {steps}; it must be 1 to {MAX_STEPS}")
        return steps

    def _edit_batch(
        self, edits: Sequence[Edit], captions: Sequence[str], seeds: Sequence[SampleSeed], steps: int
    ) -> Tensor:
        """Images (B, 3, H, W)."""
        dit = self.model.card.dit
        shape = (dit.channels, dit.image_size, dit.image_size)

        def noise(step: int) -> Tensor:
            # Purposes as in the Generator: an edit without a known part is what it generates.
            return noise_of(seeds, shape, f"consistency-{step}" if step else "noise").to(self.device)

        with torch.no_grad():
            denoiser = self._denoiser(captions)
            return edited(denoiser, self.model.autoencoder, edits, even_times(steps), noise)

    def _denoiser(self, captions: Sequence[str]) -> ConditionedDenoiser:
        model = self.model
        text = model.encoder(captions).to(self.device)
        if model.card.is_student:  # its guidance is absorbed
            return conditioned(model.denoiser, text)
        null = model.encoder([""]).to(self.device)
        return guided(model.denoiser, text, null, model.card.guidance or 1.0)


def edited(
    denoiser: ConditionedDenoiser,
    autoencoder: Autoencoder,
    edits: Sequence[Edit],
    times: Tensor,
    noise: Callable[[int], Tensor],
) -> Tensor:
    """Images (B, 3, H, W) of the edits, in len(times) - 1 steps (Song 2023, Algorithm 4).

    times: falling from 1 to 0, on the CPU; each edit's are these, times its strength. noise(step): the noise
    (B, C, h, w) of each step, numbered from 0. The known part is put back in pixels. Latents move by what
    that changes of the encoding, so that what the autoencoder loses is not lost again at every step.
    """
    first = noise(0)
    latents = autoencoder.encode(torch.stack([edit.start for edit in edits]).to(first))
    strengths = torch.tensor([edit.strength for edit in edits], device=first.device)
    for step, time in enumerate(times[:-1].tolist()):
        t = time * strengths
        x_t = denoiser.process.sample(latents, noise(step) if step else first, t).x_t
        latents = denoiser.consistency(x_t, t)
        estimates = autoencoder.decode(latents)
        pairs = zip(edits, estimates.cpu(), strict=True)  # edits are on the CPU
        images = torch.stack([edit.restore(estimate) for edit, estimate in pairs]).to(estimates)
        latents = latents + (autoencoder.encode(images) - autoencoder.encode(estimates))
    return images
