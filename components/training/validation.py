"""The flow loss on held-out images, by time: where on the path a training still gains, where it overfits."""

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.training.config import VALIDATION_LOSS
from components.training.flow_loss import FlowLoss
from components.training.loss import Batch, on_device
from components.training.noise import SampleNoise

TIME_BINS = 5  # of equal width, from the data (t = 0) to the noise (t = 1)
SEED = 0  # of the noise and the times, the same in every run, so that two runs' values compare


def named_values(by_bin: Sequence[float]) -> dict[str, float]:
    """For the curves: the mean over all times, and each bin's value, as validation_loss_t0.0-0.2."""
    edges = [number / TIME_BINS for number in range(TIME_BINS + 1)]
    names = [f"{VALIDATION_LOSS}_t{low:.1f}-{high:.1f}" for low, high in pairwise(edges)]
    return {VALIDATION_LOSS: sum(by_bin) / TIME_BINS, **dict(zip(names, by_bin, strict=True))}


class Validation:
    """Measures a network on this process's share of held-out batches; each image is looked at in every bin.

    load: makes the batches, once, when they are first wanted. They hold what FlowLoss's do. Captions are not
    dropped, and the times within a bin are uniform. every: images trained on between two measures.
    """

    def __init__(self, loss: FlowLoss, load: Callable[[], Sequence[Batch]], every: int) -> None:
        self.loss, self._load, self.every = loss, load, every

    @cached_property
    def batches(self) -> Sequence[Batch]:
        return self._load()

    @torch.no_grad()
    def __call__(self, network: nn.Module, device: torch.device) -> Tensor:
        """The mean loss in each bin, (TIME_BINS,), on the device."""
        sums, images = torch.zeros(TIME_BINS, device=device), 0
        for batch in (on_device(batch, device) for batch in self.batches):
            noise = SampleNoise.of(batch, SEED, VALIDATION_LOSS, device)
            text = TextTokens(batch["text"], batch["mask"])
            within = noise.uniform("time")
            for number in range(TIME_BINS):
                t = self.loss.process.trained_time((number + within) / TIME_BINS)
                sums[number] += self.loss.errors(network, batch, noise, t, text).flatten(1).mean(1).sum()
            images += len(within)
        return sums / images
