"""Average velocities (MeanFlow, Geng 2025): a step of any length from one evaluation.

    u(x_t, r, t) = (x_t - x_r) / (t - r)    (Eq. 3), x_r on the path through x_t; u(x_t, t, t) is the velocity

A network with a second time r is a denoiser of the path from t to r: what it predicts, converted to a
velocity as ever, is u. Without r it is that of the path to the data, so that on rectified flow its
consistency function is x_t - t u(x_t, 0, t).
"""

from itertools import pairwise

from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.diffusion.denoiser import Denoiser, conditioned
from components.diffusion.samplers import euler_step


def toward(denoiser: Denoiser, network: nn.Module, r: Tensor) -> Denoiser:
    """The denoiser whose velocity at (x_t, t) is u(x_t, r, t), r (B,); network: one with a second time."""
    return denoiser.with_network(lambda x_t, t, text: network(x_t, t, text, r))


def mean_flow(
    denoiser: Denoiser, network: nn.Module, text: TextTokens, start: Tensor, times: Tensor
) -> Tensor:
    """Go from `start` (B, C, H, W) along `times` (N + 1,) in N evaluations (Geng 2025, Eq. 12).

    Euler's step with the average velocity ends on the path, however long it is.
    """
    x = start
    grid = times.to(start)[:, None].expand(-1, len(start))
    for t, r in pairwise(grid):
        x = euler_step(conditioned(toward(denoiser, network, r), text), x, t, r)
    return x
