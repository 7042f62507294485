"""From noise to images: guided Euler steps of the flow, and consistency sampling.

A sampler reads as its equation: get noise, prepare the times, step. All take x as (B, C, H, W) in [-1, 1].
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from components.conditioning.text import TextTokens
from components.diffusion.dit import DiT
from components.diffusion.process import over
from components.randomness import derive_seed

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x_t, t) -> v


def get_noise(shape: Sequence[int], seed: int, purpose: str, first: int = 0) -> Tensor:
    """Noise (B, C, H, W) on the CPU; image `first + i` gets the same noise in whatever batch it is drawn."""
    batch, *image = shape
    rows = []
    for index in range(first, first + batch):
        generator = torch.Generator().manual_seed(derive_seed(seed, purpose, index))
        rows.append(torch.randn(image, generator=generator))
    return torch.stack(rows)


def guided_velocity(model: DiT, text: TextTokens, null: TextTokens, scale: float) -> Velocity:
    """v_null + w (v_cond - v_null) (Ho 2022), both in one batch; w = 1 asks the conditional model alone."""
    size, length = text.mask.shape
    if scale == 1.0:
        return lambda x, t: model.velocity(x, t, text)
    both = text.joined(null.repeat(size, length))

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        v_cond, v_null = model.velocity(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return v_null + scale * (v_cond - v_null)

    return velocity


def euler(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Integrate dx = v dt from t = 1 to 0 in even steps."""
    times = torch.linspace(1, 0, steps + 1, device=noise.device)
    x = noise
    for t, s in pairwise(times):
        x = euler_step(velocity, x, t.expand(len(x)), s.expand(len(x)))
    return x


def euler_step(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One first-order step from t to s, both (B,)."""
    return x + over(s - t, x) * velocity(x, t)


def heun_step(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One second-order step from t to s, both (B,)."""
    v = velocity(x, t)
    ahead = x + over(s - t, x) * v
    return x + over(s - t, x) * (v + velocity(ahead, s)) / 2


def consistency(predict: Velocity, noise: Tensor, steps: int, seed: int, first: int = 0) -> Tensor:
    """Multistep consistency sampling (Song 2023, Algorithm 1): predict x_0, add fresh noise, predict again.

    predict(x_t, t) -> x_0. Times are even: 1, (steps-1)/steps, ...
    """
    x_0 = predict(noise, torch.ones(len(noise), device=noise.device))
    for step in range(1, steps):
        t = torch.full((len(noise),), 1 - step / steps, device=noise.device)
        fresh = get_noise(noise.shape, seed, f"consistency-{step}", first).to(noise.device)
        x_0 = predict(over(1 - t, x_0) * x_0 + over(t, x_0) * fresh, t)
    return x_0
