"""Gaussian data, for which every process's best denoiser and the end of every path have a closed form.

x_0 ~ N(mu, s²) gives x_t ~ N(alpha mu, alpha² s² + sigma²), and all conditional means are linear in x_t. The
flow of the velocity keeps (x_t - alpha mu) / std(x_t), so it carries noise z at t = 1 to known images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from components.diffusion.config import Quantity
from components.diffusion.denoiser import Denoiser
from components.diffusion.process import Process, ddpm, over, rectified_flow

PROCESSES = {"rectified_flow": rectified_flow(), "ddpm": ddpm()}
QUANTITIES: tuple[Quantity, ...] = ("x_0", "velocity", "eps")


@dataclass(frozen=True)
class Gaussian:
    """mu: a number, or one for each image, (B,)."""

    mu: float | Tensor
    s: float

    def estimate(self, process: Process, quantity: Quantity, x_t: Tensor, t: Tensor) -> Tensor:
        """E[quantity | x_t], the best estimate."""
        mu = over(self.mu, x_t) if isinstance(self.mu, Tensor) else self.mu
        a, sigma = over(process.alpha(t), x_t), over(process.sigma(t), x_t)
        whitened = (x_t - a * mu) / (a**2 * self.s**2 + sigma**2)
        x_0, eps = mu + a * self.s**2 * whitened, sigma * whitened
        slopes = over(process.alpha_slope(t), x_t), over(process.sigma_slope(t), x_t)
        return {"x_0": x_0, "eps": eps, "velocity": slopes[0] * x_0 + slopes[1] * eps}[quantity]

    def end(self, process: Process, x_t: Tensor, t: Tensor) -> Tensor:
        """Where the path through (x_t, t) ends at t = 0: the exact consistency function."""
        mu = over(self.mu, x_t) if isinstance(self.mu, Tensor) else self.mu
        a, sigma = over(process.alpha(t), x_t), over(process.sigma(t), x_t)
        return mu + self.s * (x_t - a * mu) / torch.sqrt(a**2 * self.s**2 + sigma**2)

    def denoiser(self, process: Process, prediction: Quantity) -> Denoiser:
        """The best network of that prediction; it does not read its text."""
        return Denoiser(lambda x_t, t, _: self.estimate(process, prediction, x_t, t), process, prediction)
