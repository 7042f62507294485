"""What a loss is to the training loop: a function of the model, a batch and the step's context.

The context is what curricula (how far the run is), EMA targets (the averaged model) and reproducible noise
need. Noise is drawn per sample, from (seed, purpose, key, epoch): a sample meets the same noise in whatever
batch and process it is seen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from components.randomness import derive_seed

# Tensors, which the loop moves to the device, and other things. A batch whose loss draws noise holds `keys`
# (of the samples, strings) and `epochs` (how often each was seen before, integers).
Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Losses:
    """loss: what is minimised, a scalar. metrics: further scalars for the curves."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleNoise:
    """Random numbers for each sample of a batch, one stream a sample and name. seeds: one a sample."""

    seeds: Sequence[int]
    device: torch.device

    @classmethod
    def of(cls, batch: Batch, seed: int, purpose: str, device: torch.device) -> "SampleNoise":
        """The noise of a batch's samples; of a batch without keys there is none to draw."""
        named = zip(batch.get("keys", ()), batch.get("epochs", ()), strict=True)
        return cls([derive_seed(seed, purpose, key, int(epoch)) for key, epoch in named], device)

    def normal(self, name: str, shape: Sequence[int] = ()) -> Tensor:
        """Standard normal, (B, *shape)."""
        return self._draw(name, lambda stream: torch.randn(tuple(shape), generator=stream))

    def uniform(self, name: str) -> Tensor:
        """Uniform in [0, 1), (B,)."""
        return self._draw(name, lambda stream: torch.rand((), generator=stream))

    def integers(self, name: str, low: int, high: int) -> Tensor:
        """Integers in [low, high), (B,)."""
        return self._draw(name, lambda stream: torch.randint(low, high, (), generator=stream))

    def _draw(self, name: str, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        # On the CPU, so that every device sees the same numbers.
        streams = (torch.Generator().manual_seed(derive_seed(seed, name)) for seed in self.seeds)
        return torch.stack([draw(stream) for stream in streams]).to(self.device, non_blocking=True)


@dataclass(frozen=True)
class LossContext:
    """What a loss may ask of the step. images_seen: before it, over all processes.

    ema: the averaged model, None where there is none. noise: see SampleNoise.
    """

    images_seen: int
    total_images: int
    ema: nn.Module | None
    noise: SampleNoise


LossFunction = Callable[[nn.Module, Batch, LossContext], Losses]
