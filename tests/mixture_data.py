"""Data from a mixture of two Gaussians, each pixel on its own: everything but the flow has a closed form.

x_0 ~ sum of w N(mu, s²) gives x_t ~ sum of w N(alpha mu, alpha² s² + sigma²); the score is the slope of its
log density, and given its part the mean of x_0 is a Gaussian's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from components.diffusion.config import Quantity
from components.diffusion.denoiser import Denoiser
from components.diffusion.process import Process, over
from tests.gaussian_data import Gaussian


@dataclass(frozen=True)
class Mixture:
    """Of parts with these weights (which add to 1) and means, and one deviation s."""

    weights: tuple[float, ...] = (0.3, 0.7)
    means: tuple[float, ...] = (-0.8, 0.5)
    s: float = 0.2

    @property
    def mean(self) -> float:
        return sum(w * mu for w, mu in zip(self.weights, self.means, strict=True))

    @property
    def std(self) -> float:
        second = sum(w * (mu**2 + self.s**2) for w, mu in zip(self.weights, self.means, strict=True))
        return (second - self.mean**2) ** 0.5

    def log_density(self, process: Process, x_t: Tensor, t: Tensor) -> Tensor:
        """log p(x_t) of every pixel."""
        return torch.logsumexp(self._log_parts(process, x_t, t), 0)

    def x_0(self, process: Process, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t]: each part's own, by how likely it is to be x_t's."""
        shares = torch.softmax(self._log_parts(process, x_t, t), 0)
        parts = [Gaussian(mu, self.s).estimate(process, "x_0", x_t, t) for mu in self.means]
        return (shares * torch.stack(parts)).sum(0)

    def denoiser(self, process: Process, prediction: Quantity) -> Denoiser:
        """The best network of that prediction; it does not read its text."""

        def network(x_t: Tensor, t: Tensor, _: object) -> Tensor:
            x_0 = self.x_0(process, x_t, t)
            return process.convert(x_0, x_t, t, source="x_0", target=prediction)

        return Denoiser(network, process, prediction)

    def _log_parts(self, process: Process, x_t: Tensor, t: Tensor) -> Tensor:
        """log w N(x_t; alpha mu, alpha² s² + sigma²), a part each."""
        a, sigma = over(process.alpha(t), x_t), over(process.sigma(t), x_t)
        std = (a**2 * self.s**2 + sigma**2).sqrt()
        return torch.stack(
            [
                torch.distributions.Normal(a * mu, std).log_prob(x_t) + torch.tensor(w).log()
                for w, mu in zip(self.weights, self.means, strict=True)
            ]
        )
