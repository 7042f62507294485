"""The Generator: prompts to images, from any model folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.diffusion.samplers import consistency, euler, get_noise, guided_velocity
from components.distillation.consistency import consistency_map
from components.generation.model_folder import Model, load_model

BATCH = 64  # images that are drawn together
MOST_STEPS = 1000


class Generator:
    """Draws with one model. The same (prompt, seed, index, steps, guidance) gives the same image."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.device = next(model.network.parameters()).device

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> "Generator":
        """Read a model folder onto `device`; "auto" takes a GPU where there is one."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(load_model(Path(folder), device))

    def generate(
        self,
        prompts: Sequence[str],
        *,
        steps: int | None = None,
        seed: int = 0,
        guidance: float | None = None,
        first: int = 0,
        upsample: bool = True,
    ) -> npt.NDArray[np.uint8]:
        """One image per prompt, (N, H, W, 3). Image i starts from the noise of (seed, first + i).

        steps, guidance: the model's own by default. upsample: draw what `captions` makes of the prompts
        instead of the prompts as they are. Raises ValueError for steps or guidance out of range, and
        for guidance other than the absorbed one of a consistency model.
        """
        steps = self.model.card.steps if steps is None else steps
        if not 1 <= steps <= MOST_STEPS:
            raise ValueError(f"steps is {steps}; it must be 1 to {MOST_STEPS}")
        scale = self._guidance(guidance)
        texts = self.captions(prompts, seed=seed, first=first) if upsample else prompts
        batches = [
            self._draw(texts[at : at + BATCH], steps, seed, scale, first + at)
            for at in range(0, len(prompts), BATCH)
        ]
        return to_pixels(torch.cat(batches)) if batches else np.zeros((0, *self._shape()[1:], 3), np.uint8)

    def captions(self, prompts: Sequence[str], *, seed: int = 0, first: int = 0) -> list[str]:
        """The prompts at length, as the model's upsampler says them; as they are where it has none."""
        if self.model.upsampler is None:
            return list(prompts)
        said: list[str] = []
        for at in range(0, len(prompts), BATCH):
            said += self.model.upsampler(prompts[at : at + BATCH], seed=seed, first=first + at)
        return said

    def _draw(self, prompts: Sequence[str], steps: int, seed: int, scale: float, first: int) -> Tensor:
        network, encoder = self.model.network, self.model.encoder
        text = encoder(prompts).to(self.device)
        noise = get_noise((len(prompts), *self._shape()), seed, "noise", first).to(self.device)
        with torch.no_grad():
            if self.model.card.kind == "consistency":
                return consistency(
                    lambda x, t: consistency_map(network, x, t, text), noise, steps, seed, first
                )
            return euler(guided_velocity(network, text, encoder([""]).to(self.device), scale), noise, steps)

    def _guidance(self, given: float | None) -> float:
        own = self.model.card.guidance or 1.0
        if given is None:
            return own
        if self.model.card.kind == "consistency" and given != own:
            raise ValueError(f"this model absorbed guidance {own:g}; it cannot draw with {given:g}")
        if not 0 <= given <= 100:
            raise ValueError(f"guidance is {given:g}; it must be 0 to 100")
        return given

    def _shape(self) -> tuple[int, int, int]:
        dit = self.model.card.dit
        return dit.channels, dit.image_size, dit.image_size


def to_pixels(x: Tensor) -> npt.NDArray[np.uint8]:
    """(B, C, H, W) in [-1, 1] -> (B, H, W, C) in 0..255, clipped."""
    scaled = (x.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def from_pixels(images: npt.NDArray[np.uint8]) -> Tensor:
    """(B, H, W, C) in 0..255 -> (B, C, H, W) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
