"""How far an estimate is from its target: a number for each sample, which a consistency loss averages."""

import math
from collections.abc import Callable

from torch import Tensor

from components.autoencoding.perceptual import PerceptualDistance
from components.conditioning.autoencoder import Autoencoder

PSEUDO_HUBER_C = 0.00054  # times sqrt(dimensions): the pseudo-Huber constant (Song 2023b, iCT, Section 3.3)

MetricFunction = Callable[[Tensor, Tensor], Tensor]  # (B, C, H, W) of both -> (B,); the target second


def pseudo_huber_c(dimensions: int) -> float:
    """Below this distance the pseudo-Huber distance is as good as quadratic."""
    return PSEUDO_HUBER_C * math.sqrt(dimensions)


def pseudo_huber(difference: Tensor) -> Tensor:
    """sqrt(||d||² + c²) - c per sample, (B, D) -> (B,): a norm that is smooth at zero."""
    c = pseudo_huber_c(difference.shape[1])
    return (difference.square().sum(1) + c**2).sqrt() - c


def l1(difference: Tensor) -> Tensor:
    """The mean of |d| per sample, (B, D) -> (B,)."""
    return difference.abs().mean(1)


def l2(difference: Tensor) -> Tensor:
    """The mean of d² per sample, (B, D) -> (B,): Song 2023's squared l2, over the dimensions."""
    return difference.square().mean(1)


DIFFERENCES = {"pseudo_huber": pseudo_huber, "l1": l1, "l2": l2}  # by a config's name of them


def difference_metric(name: str) -> MetricFunction:
    """One of DIFFERENCES between two estimates."""
    return lambda estimate, target: DIFFERENCES[name]((estimate - target).flatten(1))


def perceptual_metric(distance: PerceptualDistance, autoencoder: Autoencoder) -> MetricFunction:
    """How differently a captioner sees the images of two estimates, which are latents (of pixels: images)."""

    def metric(estimate: Tensor, target: Tensor) -> Tensor:
        decode = autoencoder.to(estimate.device).decode
        return distance.of_each(decode(estimate), decode(target))

    return metric
