"""The diffusion process: the path from data to noise, and conversions between what may be predicted on it.

t = 0 is data and t = 1 is noise. Every path is affine, `x_t = alpha(t) x_0 + sigma(t) eps`, so two processes
differ in two functions only (and their slopes), and losses and samplers are written once. Of x_0, eps and
the velocity `v = d x_t / d t`, any one together with x_t gives the other two.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from components.diffusion.config import Prediction, ProcessName, Quantity

RECTIFIED_FLOW_T_MIN = 0.05  # JiT's clamp of x-prediction's divisor (Li 2025, Section 4.2)
DDPM_T_MIN = 1e-3  # one of DDPM's 1000 steps: where sampling stops (Song 2021, Appendix C)
SMALLEST_TIME = 1e-5  # below it DDPM's sigma' ~ t^-1/2 is taken as here (Song 2021, Appendix C)


@dataclass(frozen=True)
class PathSample:
    """A point of the path. x_0, eps, x_t, velocity: (B, C, H, W); t: (B,). velocity = d x_t / d t."""

    x_0: Tensor
    eps: Tensor
    t: Tensor
    x_t: Tensor
    velocity: Tensor


@dataclass(frozen=True)
class Process:
    """An affine path: signal `alpha` and noise `sigma` at time t in [0, 1], and their slopes in t.

    t_min: below it, conversions of x_0 divide by the noise at t_min, so that they stay finite at the data.
    t_max: above it, conversions of eps divide by the signal at t_max, so that they stay finite at the noise.
    In between, all conversions are exact. loss_target: what its own paper's loss compares.
    """

    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]
    alpha_slope: Callable[[Tensor], Tensor]
    sigma_slope: Callable[[Tensor], Tensor]
    t_min: float
    t_max: float
    loss_target: Quantity

    def sample(self, x_0: Tensor, eps: Tensor, t: Tensor) -> PathSample:
        """x_t = alpha x_0 + sigma eps and its velocity, at times t (B,)."""
        a, s, da, ds = self._coefficients(t, x_0)
        return PathSample(x_0=x_0, eps=eps, t=t, x_t=a * x_0 + s * eps, velocity=da * x_0 + ds * eps)

    def convert(
        self, value: Tensor, x_t: Tensor, t: Tensor, *, source: Prediction, target: Quantity
    ) -> Tensor:
        """`value`, the `source` at (x_t, t), as the `target` at the same place: (B, C, H, W)."""
        if source == "preconditioned":
            value, source = self.x_0_from_preconditioned(x_t, value, t), "x_0"
        if source == target:
            return value
        conversions = {
            ("x_0", "velocity"): self.velocity_from_x_0,
            ("x_0", "eps"): self.eps_from_x_0,
            ("velocity", "x_0"): self.x_0_from_velocity,
            ("velocity", "eps"): self.eps_from_velocity,
            ("eps", "x_0"): self.x_0_from_eps,
            ("eps", "velocity"): self.velocity_from_eps,
        }
        return conversions[source, target](x_t, value, t)

    def x_0_from_preconditioned(self, x_t: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """EDM's skip and scale around a network (Karras 2022, Eq. 7), for data of variance 1.

        x_0 = (alpha x_t + sigma output) / (alpha² + sigma²) at a scale that gives the output variance 1: at
        the data x_0 is x_t, at the noise it is the output, and the network never has to copy its input.
        """
        a, s, _, _ = self._coefficients(t, x_t)
        variance = a.square() + s.square()
        return a / variance * x_t + s / variance.sqrt() * output

    def x_0_from_velocity(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        """Solve (x_t, v) for x_0; exactly x_t at t = 0.

        The divisor is the determinant alpha sigma' - sigma alpha', never zero on a path, over sigma'.
        """
        a, s, da, ds = self._coefficients(t, x_t)
        return (x_t - s / ds * velocity) / (a - s * (da / ds))

    def eps_from_velocity(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        """Solve (x_t, v) for eps."""
        a, s, da, ds = self._coefficients(t, x_t)
        return (a * velocity - da * x_t) / (a * ds - s * da)

    def velocity_from_x_0(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """The velocity that a prediction of x_0 means; below t_min, its coefficients are those at t_min.

        Of rectified flow this is JiT's (x_t - x_0) / max(t, t_min). (JiT clamps the target of its loss too.)
        """
        a, s, da, ds = self._coefficients(t.clamp(min=self.t_min), x_t)
        return (ds * x_t - (a * ds - s * da) * x_0) / s

    def eps_from_x_0(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """The noise that a prediction of x_0 leaves; divided by no less than sigma(t_min)."""
        return (x_t - over(self.alpha(t), x_t) * x_0) / over(self.sigma(t.clamp(min=self.t_min)), x_t)

    def x_0_from_eps(self, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The image that a prediction of eps leaves; divided by no less than alpha(t_max)."""
        return (x_t - over(self.sigma(t), x_t) * eps) / over(self.alpha(t.clamp(max=self.t_max)), x_t)

    def velocity_from_eps(self, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The velocity that a prediction of eps means: that of eps and the image it leaves."""
        _, _, da, ds = self._coefficients(t, x_t)
        return da * self.x_0_from_eps(x_t, eps, t) + ds * eps

    def _coefficients(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """alpha, sigma, alpha', sigma' at t (B,), shaped to multiply x."""
        functions = (self.alpha, self.sigma, self.alpha_slope, self.sigma_slope)
        a, s, da, ds = (over(function(t), x) for function in functions)
        return a, s, da, ds


def make_process(name: ProcessName) -> Process:
    """The process that a config names."""
    return {"rectified_flow": rectified_flow, "ddpm": ddpm}[name]()


def rectified_flow() -> Process:
    """x_t = (1 - t) x_0 + t eps, v = eps - x_0 (Liu 2022)."""
    return Process(
        alpha=lambda t: 1 - t,
        sigma=lambda t: t,
        alpha_slope=lambda t: -torch.ones_like(t),
        sigma_slope=torch.ones_like,
        t_min=RECTIFIED_FLOW_T_MIN,
        t_max=1 - RECTIFIED_FLOW_T_MIN,
        loss_target="velocity",
    )


def ddpm(beta_min: float = 0.1, beta_max: float = 20.0) -> Process:
    """The variance-preserving path of DDPM's linear schedule in continuous time (Song 2021, Eq. 29).

    beta_min, beta_max: 1000 times Ho 2020's 1e-4 and 0.02. The signal left at t = 1 is .0066, not zero.
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
        sigma_slope=lambda t: -(alpha(t) ** 2) * slope(t) / sigma(t.clamp(min=SMALLEST_TIME)),
        t_min=DDPM_T_MIN,
        t_max=1.0,
        loss_target="eps",
    )


def over(t: Tensor, x: Tensor) -> Tensor:
    """t (B,) shaped to multiply x (B, ...)."""
    return t.view(-1, *([1] * (x.ndim - 1)))
