"""What a loss is to the training loop: a function of the model, a batch and the step's context.

The context holds what curricula (how far the run is), EMA targets (the averaged model) and reproducible
noise (noise.py) need.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from components.training.noise import SampleNoise

# Tensors, which the loop moves to the device, and other things. A batch whose loss draws noise holds `keys`
# (of the samples, strings) and `epochs` (how often each was seen before, integers).
Batch = Mapping[str, Any]


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`; the host does not wait for them."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


@dataclass(frozen=True)
class Losses:
    """loss: what is minimised, a scalar; the mean over the batch. metrics: further scalars for the curves."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LossContext:
    """What a loss may know of the step.

    images_seen: before the step, over all processes; total_images: of the whole run. ema: the averaged
    model, in eval mode and without gradients, None where there is none. noise: of this process's samples.
    target: another average, whose estimates a loss may learn, None where it learns none (train's
    target_halflife).
    """

    images_seen: int
    total_images: int
    ema: nn.Module | None
    noise: SampleNoise
    target: nn.Module | None = None


# The model may be wrapped (DDP): call it, since only its forward averages the gradients over the processes.
LossFunction = Callable[[nn.Module, Batch, LossContext], Losses]
