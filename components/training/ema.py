"""The exponential moving average of a model's weights, counted in images."""

import copy
from collections.abc import Callable

import torch
from torch import nn

RAMP_UP = 0.1  # a ramped-up half-life is at most this share of the images seen
HalfLife = Callable[[int], float]  # images seen -> images


def ramped_up(halflife_images: int) -> HalfLife:
    """A half-life that is shortened early on: with a ramp-up ratio the average forgets the random start.

    EDM2's (Karras 2024, App. C).
    """
    return lambda images_seen: min(halflife_images, images_seen * RAMP_UP)


class EMA:
    """Keeps `model`, an averaged copy."""

    def __init__(self, model: nn.Module, halflife: HalfLife) -> None:
        self.halflife = halflife
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, images_seen: int, batch: int) -> None:
        """Take in the weights after a step that ended at `images_seen`."""
        weight = 1.0 - 0.5 ** (batch / max(self.halflife(images_seen), 1e-8))
        averaged, live = ([*each.parameters(), *each.buffers()] for each in (self.model, model))
        floats = [(a, b) for a, b in zip(averaged, live, strict=True) if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [b.detach() for _, b in floats], weight)
