"""Samplers: `sampler(denoiser, start, times)` walks from the noise (or a noised image) to an image.

start: (B, C, H, W) at times[0]. times: (N + 1,), usually falling to 0; N evaluations of the denoiser (Heun's
method: 2 N). Grids are in times.py. An editing sampler is one of these with another start and grid.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from components.diffusion.denoiser import ConditionedDenoiser
from components.diffusion.process import over
from components.randomness import SampleSeed, derive_seed, sample_seeds

Step = Callable[[ConditionedDenoiser, Tensor, Tensor, Tensor], Tensor]


def get_noise(shape: Sequence[int], seed: int, purpose: str, first: int = 0) -> Tensor:
    """Noise (B, C, H, W) on the CPU; image `first + i` has the same noise in whatever batch it is."""
    batch, *image = shape
    return noise_of(sample_seeds(seed, batch, first), image, purpose)


def noise_of(seeds: Sequence[SampleSeed], image: Sequence[int], purpose: str) -> Tensor:
    """Noise (B, C, H, W) on the CPU for images (C, H, W), each from its own (seed, index)."""
    rows = []
    for sample in seeds:
        generator = torch.Generator().manual_seed(derive_seed(sample.seed, purpose, sample.index))
        rows.append(torch.randn(tuple(image), generator=generator))
    return torch.stack(rows)


def euler(denoiser: ConditionedDenoiser, start: Tensor, times: Tensor) -> Tensor:
    """Integrate dx = v dt along `times` with first-order steps."""
    return _integrate(euler_step, denoiser, start, times)


def heun(denoiser: ConditionedDenoiser, start: Tensor, times: Tensor) -> Tensor:
    """Integrate dx = v dt along `times` with second-order steps, of two evaluations each."""
    return _integrate(heun_step, denoiser, start, times)


def consistency(
    denoiser: ConditionedDenoiser, start: Tensor, times: Tensor, fresh_noise: Callable[[int], Tensor]
) -> Tensor:
    """Multistep consistency sampling (Song 2023, Algorithm 1): predict x_0, add fresh noise, predict again.

    fresh_noise(step): the noise (B, C, H, W) that takes the prediction to times[step]; 1 is the first such.
    The last time, 0, is where the last prediction lies.
    """
    x = start
    for step, (t, s) in enumerate(_steps(times, start), start=1):
        x_0 = denoiser.consistency(x, t)
        if step == len(times) - 1:
            return x_0
        x = denoiser.process.sample(x_0, fresh_noise(step).to(x_0.device), s).x_t
    return x


def euler_step(denoiser: ConditionedDenoiser, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One first-order step from t to s, both (B,)."""
    return x + over(s - t, x) * denoiser.velocity(x, t)


def heun_step(denoiser: ConditionedDenoiser, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One second-order step from t to s, both (B,)."""
    velocity = denoiser.velocity(x, t)
    ahead = x + over(s - t, x) * velocity
    return x + over(s - t, x) * (velocity + denoiser.velocity(ahead, s)) / 2


STEPS: dict[str, Step] = {"euler": euler_step, "heun": heun_step}  # by a config's name of them


def _integrate(step: Step, denoiser: ConditionedDenoiser, start: Tensor, times: Tensor) -> Tensor:
    x = start
    for t, s in _steps(times, start):
        x = step(denoiser, x, t, s)
    return x


def _steps(times: Tensor, start: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """From which time to which, for every image of the batch: (B,) each."""
    for t, s in pairwise(times.to(start.device)):
        yield t.expand(len(start)), s.expand(len(start))
