"""Couplings for reflow (Liu 2022): noise, and the image that a teacher's flow takes it to, drawn once.

Trained on them, a flow's paths cross less than on noise and images drawn apart, so they become straighter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.conditioning.text import TextEncoder
from components.diffusion.denoiser import ConditionedDenoiser
from components.diffusion.samplers import noise_of
from components.diffusion.times import even_times
from components.randomness import SampleSeed, derive_seed
from components.shards.order import permutation

PURPOSE = "reflow"


@dataclass(frozen=True)
class Couplings:
    """N pairs. x_0: (N, C, h, w), the ends; captions: what each was sampled for; seed: of the noises."""

    x_0: Tensor
    captions: Sequence[str]
    seed: int

    def eps(self, rows: Sequence[int]) -> Tensor:
        """The noises (B, C, h, w) that these pairs start from."""
        return coupling_noise(self.seed, rows, self.x_0.shape[1:])

    def batches(
        self,
        encoder: TextEncoder,
        images_seen: int,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
        device: torch.device,
    ) -> Iterator[dict[str, Any]]:
        """One rank's share of the batches after `images_seen`, for ever; see FlowLoss.

        Each epoch has its own order; an epoch's last batch is completed from the next one.
        """
        count, at = len(self.captions), images_seen
        while True:
            places = range(at + rank, at + batch_size, world_size)
            epochs = [place // count for place in places]
            orders = {epoch: self._order(epoch) for epoch in set(epochs)}
            rows = [int(orders[epoch][place % count]) for epoch, place in zip(epochs, places, strict=True)]
            text = encoder([self.captions[row] for row in rows])
            yield {
                "x_0": self.x_0[rows].to(device, non_blocking=True),
                "eps": self.eps(rows).to(device, non_blocking=True),
                "text": text.values,
                "mask": text.mask,
                "keys": [str(row) for row in rows],
                "epochs": epochs,
            }
            at += batch_size

    def _order(self, epoch: int) -> "np.typing.NDArray[np.int64]":
        return permutation(derive_seed(self.seed, PURPOSE, "order", epoch), len(self.captions))


def coupling_noise(seed: int, rows: Sequence[int], shape: Sequence[int]) -> Tensor:
    """The noise (B, *shape) of the pairs with these numbers, on the CPU."""
    return noise_of([SampleSeed(seed, row) for row in rows], shape, PURPOSE)


def straightness(denoiser: ConditionedDenoiser, start: Tensor, steps: int) -> Tensor:
    """How far a flow's paths from `start` (B, C, h, w) are from straight lines, per image (B,).

    The mean over time and pixels of ((x_1 - x_0) - v(x_t, t))² along Euler's path (Liu 2022, Eq. 5): 0 for
    straight paths, which one step follows exactly.
    """
    times = even_times(steps).to(start)
    x, velocities = start, []
    for t, s in pairwise(times):
        velocities.append(denoiser.velocity(x, t.expand(len(x))))
        x = x + (s - t) * velocities[-1]
    chord = start - x
    return torch.stack([(chord - velocity).square().flatten(1).mean(1) for velocity in velocities]).mean(0)
