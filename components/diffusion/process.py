"""The diffusion process: the path from data to noise, and conversions between what may be predicted on it.

t = 0 is data and t = 1 is noise. Every path is affine, `x_t = alpha(t) x_0 + sigma(t) eps`, so two processes
differ in two functions only (and their slopes), and losses and samplers are written once. Of x_0, eps, the
velocity `v = d x_t / d t` and the score `d log p(x_t) / d x_t`, any one together with x_t gives the others.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from components.diffusion.config import LossTarget, Prediction, ProcessName, Quantity
from components.diffusion.ddpm import Chain, Posterior, cosine_chain, linear_chain

RECTIFIED_FLOW_T_MIN = 0.05  # JiT's clamp of x-prediction's divisor (Li 2025, Section 4.2)
COSINE_T_MAX = 0.996  # the cosine schedule's signal is .0063 there, as the linear's is at the end
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
    In between, all conversions are exact. loss_target: what its own paper's loss compares. diffusion: the
    noise g² that the reverse SDE adds per unit of time; every g has the path's marginals, if its drift is the
    velocity's less g² / 2 of the score (Song 2021, Eq. 13; Ma 2024, Eq. 5). chain_steps: T, if it is a
    chain's, at whose steps t = n / T its paper trains.
    """

    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]
    alpha_slope: Callable[[Tensor], Tensor]
    sigma_slope: Callable[[Tensor], Tensor]
    t_min: float
    t_max: float
    loss_target: LossTarget
    diffusion: Callable[[Tensor], Tensor]
    chain_steps: int | None = None

    def trained_time(self, t: Tensor) -> Tensor:
        """t in [0, 1), or of a chain the time n / T of the next step, at which its paper trains."""
        return t if self.chain_steps is None else (t * self.chain_steps + 1).floor() / self.chain_steps

    def sample(self, x_0: Tensor, eps: Tensor, t: Tensor) -> PathSample:
        """x_t = alpha x_0 + sigma eps and its velocity, at times t (B,)."""
        a, s, da, ds = self._coefficients(t, x_0)
        return PathSample(x_0=x_0, eps=eps, t=t, x_t=a * x_0 + s * eps, velocity=da * x_0 + ds * eps)

    def convert(
        self, value: Tensor, x_t: Tensor, t: Tensor, *, source: Prediction | Quantity, target: Quantity
    ) -> Tensor:
        """`value`, the `source` at (x_t, t), as the `target` at the same place: (B, C, H, W)."""
        if source == "preconditioned":
            value, source = self.x_0_from_preconditioned(x_t, value, t), "x_0"
        if source == "score":
            value, source = self.eps_from_score(value, t), "eps"
        if source == target:
            return value
        if target == "score":
            eps = self.convert(value, x_t, t, source=source, target="eps")
            return self.score_from_eps(eps, t)
        conversions = {
            ("x_0", "velocity"): self.velocity_from_x_0,
            ("x_0", "eps"): self.eps_from_x_0,
            ("velocity", "x_0"): self.x_0_from_velocity,
            ("velocity", "eps"): self.eps_from_velocity,
            ("eps", "x_0"): self.x_0_from_eps,
            ("eps", "velocity"): self.velocity_from_eps,
        }
        return conversions[source, target](x_t, value, t)

    def clamps(self, t: Tensor) -> Tensor:
        """At which times (B,) a conversion of x_0 or eps is clamped, (B,) bool."""
        return (t < self.t_min) | (t > self.t_max)

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

        Of rectified flow this is JiT's (x_t - x_0) / max(t, t_min).
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

    def score_from_eps(self, eps: Tensor, t: Tensor) -> Tensor:
        """-eps / sigma (Song 2021, Appendix B); divided by no less than sigma(t_min)."""
        return -eps / over(self.sigma(t.clamp(min=self.t_min)), eps)

    def eps_from_score(self, score: Tensor, t: Tensor) -> Tensor:
        """The noise that a score means; none at the data."""
        return -over(self.sigma(t), score) * score

    def posterior(self, t: Tensor, s: Tensor, like: Tensor) -> Posterior:
        """q(x_s | x_t, x_0) for 0 <= s < t (B,) of the Markov chain that has the path's marginals.

        Of DDPM, Ho 2020's Eq. 6-7, from any step to any before it; of every path, Kingma 2021's Eq. 25-27. At
        s = 0 it is x_0 itself.
        """
        (a_t, s_t, _, _), (a_s, s_s, _, _) = self._coefficients(t, like), self._coefficients(s, like)
        ratio = a_t / a_s
        added = s_t.square() - (ratio * s_s).square()  # the variance of x_t given x_s
        return Posterior(
            x_t_weight=ratio * (s_s / s_t).square(),
            x_0_weight=a_s * added / s_t.square(),
            variance=added * (s_s / s_t).square(),
        )

    def _coefficients(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """alpha, sigma, alpha', sigma' at t (B,), shaped to multiply x."""
        functions = (self.alpha, self.sigma, self.alpha_slope, self.sigma_slope)
        a, s, da, ds = (over(function(t), x) for function in functions)
        return a, s, da, ds


def make_process(name: ProcessName) -> Process:
    """The process that a config names."""
    return {"rectified_flow": rectified_flow, "ddpm": ddpm, "ddpm_cosine": ddpm_cosine}[name]()


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
        diffusion=lambda t: 2 * t,  # d sigma² / dt; its own forward SDE's is infinite at the noise
    )


def ddpm() -> Process:
    """DDPM with its linear schedule (Ho 2020). The signal left at t = 1 is .0064, not zero."""
    return chain_process(linear_chain())


def ddpm_cosine() -> Process:
    """DDPM with the cosine schedule (Nichol 2021)."""
    return chain_process(cosine_chain(), t_max=COSINE_T_MAX)


def chain_process(chain: Chain, t_max: float = 1.0) -> Process:
    """The variance-preserving path through a chain's steps: exactly its alpha-bar at t = n / T."""

    def alpha(t: Tensor) -> Tensor:
        return torch.exp(chain.log_alpha_bar(t) / 2)

    def sigma(t: Tensor) -> Tensor:
        return torch.expm1(chain.log_alpha_bar(t)).abs().sqrt()  # 0 at the data, not -0

    def slope(t: Tensor) -> Tensor:
        return chain.log_alpha_bar_slope(t) / 2  # d log alpha / dt

    return Process(
        alpha=alpha,
        sigma=sigma,
        alpha_slope=lambda t: alpha(t) * slope(t),
        sigma_slope=lambda t: -(alpha(t) ** 2) * slope(t) / sigma(t.clamp(min=SMALLEST_TIME)),
        t_min=1 / chain.steps,
        t_max=t_max,
        loss_target="eps",
        diffusion=lambda t: -2 * slope(t),  # beta(t) of the forward SDE (Song 2021, Eq. 11)
        chain_steps=chain.steps,
    )


def over(t: Tensor, x: Tensor) -> Tensor:
    """t (B,) shaped to multiply x (B, ...)."""
    return t.view(-1, *([1] * (x.ndim - 1)))
