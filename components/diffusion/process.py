"""The diffusion process: the path from data to noise, and what a network may predict on it.

t = 0 is data and t = 1 is noise. Every path is affine, `x_t = alpha(t) x_0 + sigma(t) eps`, so DDPM and
rectified flow differ in two functions only, and losses and samplers are written once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

T_MIN = 0.05  # times below it divide by it: x-prediction's velocity stays finite near the data (JiT, Li 2025)


@dataclass(frozen=True)
class PathSample:
    """A point of the path. x_t, v: like x_0, (B, C, H, W); t: (B,). v = d x_t / d t."""

    x_0: Tensor
    eps: Tensor
    t: Tensor
    x_t: Tensor
    v: Tensor


@dataclass(frozen=True)
class Process:
    """An affine path: signal `alpha` and noise `sigma` at time t in [0, 1], and their slopes in t."""

    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]
    alpha_slope: Callable[[Tensor], Tensor]
    sigma_slope: Callable[[Tensor], Tensor]

    def sample(self, x_0: Tensor, eps: Tensor, t: Tensor) -> PathSample:
        """x_t = alpha x_0 + sigma eps and its velocity, at times t (B,)."""
        a, s, da, ds = (over(f(t), x_0) for f in (self.alpha, self.sigma, self.alpha_slope, self.sigma_slope))
        return PathSample(x_0=x_0, eps=eps, t=t, x_t=a * x_0 + s * eps, v=da * x_0 + ds * eps)

    def x_0_from_v(self, x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """Solve (x_t, v) for x_0: the determinant is alpha sigma' - sigma alpha', never zero on a path."""
        a, s, da, ds = (over(f(t), x_t) for f in (self.alpha, self.sigma, self.alpha_slope, self.sigma_slope))
        return (ds * x_t - s * v) / (a * ds - s * da)

    def eps_from_v(self, x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """Solve (x_t, v) for eps."""
        a, s, da, ds = (over(f(t), x_t) for f in (self.alpha, self.sigma, self.alpha_slope, self.sigma_slope))
        return (a * v - da * x_t) / (a * ds - s * da)

    def v_from_x_0(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """The velocity that a prediction of x_0 means; singular at sigma = 0."""
        a, s, da, ds = (over(f(t), x_t) for f in (self.alpha, self.sigma, self.alpha_slope, self.sigma_slope))
        return da * x_0 + ds * (x_t - a * x_0) / s

    def v_from_eps(self, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The velocity that a prediction of eps means; singular at alpha = 0."""
        a, s, da, ds = (over(f(t), x_t) for f in (self.alpha, self.sigma, self.alpha_slope, self.sigma_slope))
        return da * (x_t - s * eps) / a + ds * eps


def rectified_flow() -> Process:
    """x_t = (1 - t) x_0 + t eps, v = eps - x_0 (Liu 2022)."""
    return Process(
        alpha=lambda t: 1 - t,
        sigma=lambda t: t,
        alpha_slope=lambda t: -torch.ones_like(t),
        sigma_slope=torch.ones_like,
    )


def ddpm(beta_min: float = 0.1, beta_max: float = 20.0) -> Process:
    """The variance-preserving path of DDPM's linear schedule in continuous time (Song 2021, Eq. 29).

    beta_min, beta_max: 1000 times Ho 2020's 1e-4 and 0.02.
    """

    def log_alpha(t: Tensor) -> Tensor:
        return -0.25 * t**2 * (beta_max - beta_min) - 0.5 * t * beta_min

    def alpha(t: Tensor) -> Tensor:
        return torch.exp(log_alpha(t))

    def slope(t: Tensor) -> Tensor:
        return -0.5 * (beta_min + t * (beta_max - beta_min))  # d log alpha / dt

    def sigma(t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(2 * log_alpha(t)))

    return Process(
        alpha=alpha,
        sigma=sigma,
        alpha_slope=lambda t: alpha(t) * slope(t),
        sigma_slope=lambda t: -(alpha(t) ** 2) * slope(t) / sigma(t),
    )


def velocity_of_x_hat(x_t: Tensor, x_hat: Tensor, t: Tensor) -> Tensor:
    """Rectified flow's velocity of a predicted x_0, finite at every t (B,): (x_t - x_hat) / max(t, T_MIN)."""
    return (x_t - x_hat) / over(t.clamp(min=T_MIN), x_t)


def logit_normal(normal: Tensor, mean: float, std: float) -> Tensor:
    """Times in (0, 1) from standard normal numbers (Esser 2024, Eq. 19); a positive mean leans to noise."""
    return torch.sigmoid(mean + std * normal)


def shift_times(t: Tensor, shift: float) -> Tensor:
    """SD3's resolution shift: t' = s t / (1 + (s - 1) t) (Esser 2024, Eq. 23); s = 1 leaves t as it is."""
    return shift * t / (1 + (shift - 1) * t)


def over(t: Tensor, x: Tensor) -> Tensor:
    """t (B,) shaped to multiply x (B, ...)."""
    return t.view(-1, *([1] * (x.ndim - 1)))
