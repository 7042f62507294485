"""A step's context, for tests of losses alone."""

from typing import Any

import torch

from components.training.loss import Batch, LossContext, SampleNoise


def named(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with keys and epochs, from which its noise is a function."""
    size = len(batch["x_0"])
    return {**batch, "keys": [f"sample {i}" for i in range(size)], "epochs": [0] * size}


def context(batch: Batch, seed: int = 0) -> LossContext:
    """The first step of a run of one step, without an averaged model."""
    noise = SampleNoise.of(batch, seed, "test", torch.device("cpu"))
    return LossContext(images_seen=0, total_images=len(batch["keys"]), ema=None, noise=noise)
