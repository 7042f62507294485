"""Classifier-free guidance as a denoiser: what samplers take knows nothing of it."""

import torch
from torch import Tensor

from components.conditioning.text import TextTokens
from components.diffusion.config import Quantity
from components.diffusion.denoiser import ConditionedDenoiser, Denoiser, conditioned


def guided(denoiser: Denoiser, text: TextTokens, null: TextTokens, scale: float) -> ConditionedDenoiser:
    """null + w (conditional - null) (Ho 2022), both in one batch; w = 1 evaluates the conditional alone.

    text: of the batch; null: the empty caption (1, l), no longer than the texts. All three quantities are
    affine in each other at one (x_t, t), so guiding one is guiding the others.
    """
    return conditioned(denoiser, text) if scale == 1.0 else _Guided(denoiser, text, null, scale)


class _Guided(ConditionedDenoiser):
    def __init__(self, denoiser: Denoiser, text: TextTokens, null: TextTokens, scale: float) -> None:
        self.process = denoiser.process
        self.denoiser, self.scale = denoiser, scale
        self.both = text.joined(null.repeat(*text.mask.shape))

    def estimate(self, quantity: Quantity, x_t: Tensor, t: Tensor) -> Tensor:
        x_twice, t_twice = torch.cat([x_t, x_t]), torch.cat([t, t])
        conditional, null = self.denoiser.estimate(quantity, x_twice, t_twice, self.both).chunk(2)
        return null + self.scale * (conditional - null)
