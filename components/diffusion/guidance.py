"""Guidance as a denoiser, classifier-free and by a weaker network: what samplers take knows nothing of it."""

import torch
from torch import Tensor

from components.conditioning.text import TextTokens
from components.diffusion.config import Quantity
from components.diffusion.denoiser import ConditionedDenoiser, Denoiser, conditioned
from components.diffusion.process import over

ALWAYS = (0.0, 1.0)


def guided(
    denoiser: Denoiser,
    text: TextTokens,
    null: TextTokens,
    scale: float,
    *,
    interval: tuple[float, float] = ALWAYS,
    rescale: float = 0.0,
) -> ConditionedDenoiser:
    """null + w (conditional - null) (Ho 2022), both in one batch; w = 1 evaluates the conditional alone.

    Of a denoiser with an autoguide a (conditional - the guide's conditional) is added, a being its scale
    (autoguidance, Karras 2024b): where a weaker version of the network errs, the network errs the same way,
    less. Without it at w = 1, which is no guidance.

    text: of the batch; null: the empty caption (1, l), no longer than the texts. All quantities are affine in
    each other at one (x_t, t), so guiding one is guiding the others.

    interval: the times, both included, at which there is guidance; elsewhere w is 1 (Kynkäänniemi 2024).
    rescale: the share, 0 to 1, to which what the network predicts gets the standard deviation, over each
    image, that it has without guidance (Lin 2023, Eq. 14-16); 0 leaves it as guidance makes it.
    """
    if scale == 1.0:
        return conditioned(denoiser, text)
    if interval == ALWAYS and not rescale:
        return _Guided(denoiser, text, null, scale)
    return _LimitedGuidance(denoiser, text, null, scale, interval, rescale)


class _Guided(ConditionedDenoiser):
    def __init__(self, denoiser: Denoiser, text: TextTokens, null: TextTokens, scale: float) -> None:
        self.process = denoiser.process
        self.denoiser, self.text, self.scale = denoiser, text, scale
        self.both = text.joined(null.repeat(*text.mask.shape))

    def estimate(self, quantity: Quantity, x_t: Tensor, t: Tensor) -> Tensor:
        return self.conditional_and_guided(quantity, x_t, t)[1]

    def conditional_and_guided(self, quantity: Quantity, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The estimate without guidance and the one with it, from one evaluation of twice the batch."""
        x_twice, t_twice = torch.cat([x_t, x_t]), torch.cat([t, t])
        conditional, null = self.denoiser.estimate(quantity, x_twice, t_twice, self.both).chunk(2)
        guided = null + self.scale * (conditional - null)
        if (guide := self.denoiser.autoguide) is not None:
            weaker = self.denoiser.with_network(guide.network).estimate(quantity, x_t, t, self.text)
            guided = guided + guide.scale * (conditional - weaker)
        return conditional, guided


class _LimitedGuidance(_Guided):
    """Guidance in an interval of times, or rescaled."""

    def __init__(
        self,
        denoiser: Denoiser,
        text: TextTokens,
        null: TextTokens,
        scale: float,
        interval: tuple[float, float],
        rescale: float,
    ) -> None:
        super().__init__(denoiser, text, null, scale)
        self.interval, self.rescale = interval, rescale
        prediction = denoiser.prediction
        self.predicted: Quantity = "x_0" if prediction == "preconditioned" else prediction

    def estimate(self, quantity: Quantity, x_t: Tensor, t: Tensor) -> Tensor:
        low, high = self.interval
        inside = (t >= low) & (t <= high)
        if not inside.any():  # waits for a GPU, but saves half of the evaluation
            return self.denoiser.estimate(quantity, x_t, t, self.text)
        conditional, guided = self.conditional_and_guided(self.predicted, x_t, t)
        guided = torch.where(over(inside, x_t), guided, conditional)
        if self.rescale:
            guided = rescaled(guided, conditional, self.rescale)
        return self.process.convert(guided, x_t, t, source=self.predicted, target=quantity)


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """`guided`, (B, C, H, W), a share of the way to the conditional's deviation (Lin 2023, Eq. 15-16)."""
    images = tuple(range(1, guided.ndim))
    ratio = conditional.std(images, keepdim=True) / guided.std(images, keepdim=True)
    return guided * (share * ratio + (1 - share))
