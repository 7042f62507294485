"""Random numbers for each sample of a batch, from (seed, purpose, key, epoch).

A sample meets the same noise in whatever batch, process or order it is seen, so a training in 1, 2 or 4
processes draws the same numbers, and a resumed one draws them again.

The generator is counter-based (SplitMix64, Steele 2014): number i of a stream is a hash of (stream, i), so
all numbers of a batch are computed at once, where the batch lies, without a state or a transfer. Bits are
the same on every device. Normal numbers are computed in float64 and rounded to float32, so that two devices
whose logarithms differ in a last bit give the same float32 (but for one in some 10^8).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from components.errors import InputError
from components.randomness import derive_seed

# SplitMix64's constants, as int64: its arithmetic wraps as that of uint64 does.
INCREMENT = 0x9E3779B97F4A7C15 - 2**64
MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
SHIFTS = (30, 27, 31)
LOW_32 = 2**32 - 1


@dataclass(frozen=True)
class SampleNoise:
    """Named random tensors for the samples of a batch. seeds: one a sample, B of them."""

    seeds: Sequence[int]
    device: torch.device

    @classmethod
    def of(cls, batch: Mapping[str, Any], seed: int, purpose: str, device: torch.device) -> "SampleNoise":
        """The noise of a batch's samples, named by its `keys` and `epochs`."""
        samples = zip(batch.get("keys", ()), batch.get("epochs", ()), strict=True)
        return cls([derive_seed(seed, purpose, key, int(epoch)) for key, epoch in samples], device)

    def normal(self, name: str, shape: Sequence[int] = ()) -> Tensor:
        """Standard normal, float32, (B, *shape). By Box and Muller: two from 64 bits, up to 6.7 sigma."""
        size = math.prod(shape)
        bits = self._bits(name, (size + 1) // 2)
        uniform = ((bits >> 32) & LOW_32).double().add_(0.5).mul_(2.0**-32)  # in (0, 1)
        angle = (bits & LOW_32).double().mul_(2 * math.pi * 2.0**-32)
        radius = uniform.log_().mul_(-2).sqrt_()
        pairs = torch.cat([angle.cos().mul_(radius), angle.sin_().mul_(radius)], dim=1)
        return self._on_device(pairs[:, :size].float().view(-1, *shape))

    def uniform(self, name: str) -> Tensor:
        """Uniform in [0, 1), float32, (B,); a multiple of 2^-24."""
        return self._on_device(((self._bits(name, 1)[:, 0] >> 40) & (2**24 - 1)).float() * 2.0**-24)

    def integers(self, name: str, low: int, high: int) -> Tensor:
        """Integers in [low, high), int64, (B,). high - low < 2^31; the bias is below (high - low) / 2^32."""
        return self._on_device(low + (((self._bits(name, 1)[:, 0] >> 32) & LOW_32) * (high - low) >> 32))

    def _bits(self, name: str, count: int) -> Tensor:
        """64 random bits each, (B, count), of the streams called `name`."""
        if not self.seeds:
            raise InputError("the loss draws noise, which needs `keys` and `epochs` of the batch's samples")
        return split_mix(mix(self._states ^ derive_seed(0, "noise", name)), count)

    @cached_property
    def _states(self) -> Tensor:
        """The seeds as a tensor: all that is copied to the device."""
        where = "cpu" if self.device.type == "mps" else self.device  # which has no float64
        return torch.tensor(self.seeds, dtype=torch.int64).to(where, non_blocking=True)

    def _on_device(self, values: Tensor) -> Tensor:
        return values.to(self.device, non_blocking=True)


def split_mix(states: Tensor, count: int) -> Tensor:
    """The next `count` outputs of SplitMix64 in each state (B,): (B, count), int64 for uint64."""
    steps = torch.arange(1, count + 1, device=states.device)
    return mix(states[:, None] + INCREMENT * steps)


def mix(bits: Tensor) -> Tensor:
    """SplitMix64's finalizer, a bijection of 64 bits."""
    for shift, multiplier in zip(SHIFTS, (*MULTIPLIERS, 1), strict=True):
        shifted = (bits >> shift) & (2 ** (64 - shift) - 1)  # int64 would shift its sign in
        bits = (bits ^ shifted).mul_(multiplier)
    return bits
