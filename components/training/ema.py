"""The exponential moving average of a model's weights, counted in images."""

import copy

import torch
from torch import nn


class EMA:
    """Keeps `model`, an averaged copy. Half-life in images, shortened early on (EDM2's ramp-up).

    Karras 2024, App. C: with a ramp-up ratio the average forgets the random start.
    """

    RAMP_UP = 0.1  # the half-life is at most this share of the images seen

    def __init__(self, model: nn.Module, halflife_images: int) -> None:
        self.halflife = halflife_images
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._averaged = [*self.model.parameters(), *self.model.buffers()]

    @torch.no_grad()
    def update(self, model: nn.Module, images_seen: int, batch: int) -> None:
        """Take in the weights after a step that ended at `images_seen`."""
        halflife = min(self.halflife, images_seen * self.RAMP_UP)
        weight = 1.0 - 0.5 ** (batch / max(halflife, 1e-8))
        live = [*model.parameters(), *model.buffers()]
        floats = [(a, b) for a, b in zip(self._averaged, live, strict=True) if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [b.detach() for _, b in floats], weight)
