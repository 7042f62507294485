"""Which two times a consistency loss compares, and how near they come to each other over the run.

All of it is counted in images: `k` steps of `K` in the papers are images_seen of total_images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from components.diffusion.times import shift_times
from components.distillation.config import ConsistencyConfig
from components.training.loss import LossContext

ECT_BASE, ECT_K, ECT_B = 2, 8, 1  # q, k and b of ECT's mapping of t to s (Geng 2024)


@dataclass(frozen=True)
class TimePair:
    """Two times of one path, (B,) each: s is nearer to the data than t."""

    t: Tensor
    s: Tensor


def draw_times(config: ConsistencyConfig, context: LossContext) -> TimePair:
    """The times of a batch: neighbours on a grid of so many shifted intervals, or t and ECT's s.

    A grid's t is one of n / intervals, n from 1, so that some of the samples are pure noise at every stage.
    """
    if config.curriculum == "ratio":
        t = shift_times(1 - context.noise.uniform("time"), config.shift)
        stage = 1 + context.images_seen * config.halvings // context.total_images
        return TimePair(t, ect_previous(t, stage))
    intervals = intervals_at(config, context.images_seen, context.total_images)
    n = context.noise.integers("interval", 1, intervals + 1)
    t, s = (shift_times(k / intervals, config.shift) for k in (n, n - 1))
    return TimePair(t, s)


def intervals_at(config: ConsistencyConfig, images_seen: int, total_images: int) -> int:
    """N(k) - 1: s0 = intervals, doubled in stages of equal length up to s1 = most_intervals.

    N(k) = min(s0 2^⌊k / K'⌋, s1) + 1, K' = K / (log2⌊s1 / s0⌋ + 1) (Song 2023b, iCT, Section 3.4).
    """
    if config.curriculum != "doubling":
        return config.intervals
    stages = math.log2(config.most_intervals // config.intervals) + 1
    return int(min(config.intervals * 2 ** int(images_seen * stages / total_images), config.most_intervals))


def ect_previous(t: Tensor, stage: int) -> Tensor:
    """ECT's s for t (B,): sigma_s / sigma_t = 1 - n(sigma_t) / 2^stage, but no less than 0, for stage >= 1.

    n(sigma) = 1 + 8 sigmoid(-sigma) (Geng 2024, the mapping function), on sigma = t / (1 - t), the noise
    beside a signal of 1 on rectified flow; that sigma times a ratio is t shifted by it.
    """
    n = 1 + ECT_K * torch.sigmoid(-ECT_B * t / (1 - t))
    return shift_times(t, (1 - n / ECT_BASE**stage).clamp(min=0))


def target_halflife(config: ConsistencyConfig, total_images: int) -> Callable[[int], float] | None:
    """The half-life of the targets' average at images_seen, in images; None where no average is learned.

    It grows as the intervals do: mu(k) = exp(s0 log(mu0) / N(k)) (Song 2023, Appendix C).
    """
    if config.target != "ema":
        return None

    def halflife(images_seen: int) -> float:
        intervals = intervals_at(config, images_seen, total_images)
        return config.target_halflife_images * intervals / config.intervals

    return halflife
