"""Times: the grids that samplers walk, and the times that a loss trains at. t = 0 is data, t = 1 is noise."""

import torch
from torch import Tensor


def even_times(steps: int, start: float = 1.0) -> Tensor:
    """`steps` even steps from `start` to 0: (steps + 1,), on the CPU."""
    return torch.linspace(start, 0, steps + 1)


def shifted_times(steps: int, shift: float, start: float = 1.0) -> Tensor:
    """The even times, shifted; above 1 they are finer near the noise: (steps + 1,), on the CPU."""
    return shift_times(even_times(steps, start), shift)


def shift_times(t: Tensor, shift: float) -> Tensor:
    """SD3's resolution shift: t' = s t / (1 + (s - 1) t) (Esser 2024, Eq. 23); s = 1 leaves t as it is."""
    return shift * t / (1 + (shift - 1) * t)


def logit_normal(normal: Tensor, mean: float, std: float) -> Tensor:
    """Times in (0, 1) from standard normal numbers (Esser 2024, Eq. 19); a positive mean leans to noise."""
    return torch.sigmoid(mean + std * normal)
