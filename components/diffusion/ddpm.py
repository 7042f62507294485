"""DDPM's discrete chain (Ho 2020): its schedules, closed forms, and its path in continuous time.

The chain has steps n = 1 .. T; 0 is the data. It is also a path in t = n / T (process.py): between two
steps log alpha-bar is interpolated, at the steps it is the chain's own, so that training at them is the
paper's and every sampler walks the same path on any grid.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

CHAIN_STEPS = 1000  # T (Ho 2020, Section 4)
LINEAR_BETAS = (1e-4, 0.02)  # first and last (Ho 2020, Section 4)
COSINE_OFFSET = 0.008  # s (Nichol 2021, Eq. 17)
MAX_BETA = 0.999  # of the cosine schedule, whose last would be 1 (Nichol 2021, Section 3.2)


@dataclass(frozen=True)
class Posterior:
    """q(x_s | x_t, x_0), a Gaussian for s < t: what multiplies x_t and x_0 in its mean, and its variance.

    All are shaped to multiply images (B, C, H, W).
    """

    x_t_weight: Tensor
    x_0_weight: Tensor
    variance: Tensor

    def mean(self, x_t: Tensor, x_0: Tensor) -> Tensor:
        """Like x_t."""
        return self.x_t_weight * x_t + self.x_0_weight * x_0


@dataclass(frozen=True, eq=False)
class Chain:
    """betas: beta_1 .. beta_T, (T,), float64. Steps n are (B,), whole numbers; images (B, C, H, W)."""

    betas: Tensor

    @property
    def steps(self) -> int:
        """T."""
        return len(self.betas)

    @cached_property
    def alpha_bars(self) -> Tensor:
        """alpha-bar_0 = 1, alpha-bar_1, .. alpha-bar_T, (T + 1,)."""
        return self.log_alpha_bars.exp()

    def sample(self, x_0: Tensor, eps: Tensor, n: Tensor) -> Tensor:
        """x_n of q(x_n | x_0) = N(sqrt(alpha-bar) x_0, (1 - alpha-bar) I) (Eq. 4)."""
        alpha_bar = self._at(self.alpha_bars, n, x_0)
        return alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps

    def posterior(self, n: Tensor, like: Tensor) -> Posterior:
        """q(x_{n-1} | x_n, x_0), n from 1 (Eq. 6 and 7): all in x_0 at n = 1. like: the images."""
        alpha_bar, before = (self._at(self.alpha_bars, k, like) for k in (n, n - 1))
        beta = self._at(self.betas, n - 1, like)
        return Posterior(
            x_t_weight=(1 - beta).sqrt() * (1 - before) / (1 - alpha_bar),
            x_0_weight=before.sqrt() * beta / (1 - alpha_bar),
            variance=(1 - before) / (1 - alpha_bar) * beta,  # beta-tilde
        )

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """log alpha-bar at times t = n / T in [0, 1]: the chain's at its steps, Hermite cubics in between."""
        (a, b, c, d), u = self._cubic(t)
        return a + u * (b + u * (c + u * d))

    def log_alpha_bar_slope(self, t: Tensor) -> Tensor:
        """d log alpha-bar / dt, continuous; -beta(t) of the path in continuous time (Song 2021, Eq. 11)."""
        (_, b, c, d), u = self._cubic(t)
        return self.steps * (b + u * (2 * c + u * (3 * d)))

    def _cubic(self, t: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The coefficients of the cubic of t's interval, from the constant on, and how far in it t is."""
        n = (t * self.steps).long().clamp(max=self.steps - 1)
        return _cubics(self, t.device, t.dtype)[n].unbind(-1), t * self.steps - n

    @cached_property
    def log_alpha_bars(self) -> Tensor:
        """(T + 1,)."""
        return torch.cat([self.betas.new_zeros(1), torch.log1p(-self.betas).cumsum(0)])

    @cached_property
    def slopes(self) -> Tensor:
        """Per step, (T + 1,), of the parabola through a step and its neighbours: what the linear schedule
        almost is. Where they are at most 3 times the changes beside them, alpha-bar falls all along (Fritsch
        1980): so do both schedules', the cosine's last step included.
        """
        change = self.log_alpha_bars.diff()
        inner = (change[:-1] + change[1:]) / 2
        first, last = (3 * change[:1] - change[1:2]) / 2, (3 * change[-1:] - change[-2:-1]) / 2
        return torch.cat([first, inner, last])

    @staticmethod
    def _at(table: Tensor, n: Tensor, like: Tensor) -> Tensor:
        """The table's entries at n (B,), shaped to multiply `like`."""
        values = table.to(like.device)[n.long().to(like.device)]
        return values.to(like.dtype).view(-1, *([1] * (like.ndim - 1)))


@lru_cache
def linear_chain(steps: int = CHAIN_STEPS) -> Chain:
    """Betas that grow evenly from 1e-4 to 0.02 (Ho 2020, Section 4)."""
    return Chain(torch.linspace(*LINEAR_BETAS, steps, dtype=torch.float64))


@lru_cache
def cosine_chain(steps: int = CHAIN_STEPS) -> Chain:
    """alpha-bar = f(n / T) / f(0), f(t) = cos²((t + s) / (1 + s) pi / 2); betas up to .999 (Nichol 2021)."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    alpha_bars = torch.cos((t + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2).square()
    return Chain((1 - alpha_bars[1:] / alpha_bars[:-1]).clamp(max=MAX_BETA))


@lru_cache
def _cubics(chain: Chain, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The coefficients of every interval's cubic, (T, 4); copied once, since a copy would wait for a GPU."""
    values, change = chain.log_alpha_bars, chain.log_alpha_bars.diff()
    first, last = chain.slopes[:-1], chain.slopes[1:]
    cubics = [values[:-1], first, 3 * change - 2 * first - last, first + last - 2 * change]
    return torch.stack(cubics, -1).to(device, dtype)
