"""Times for a few steps of a student, each tuned in turn (Song 2023, after Algorithm 1)."""

import math
from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor

from components.conditioning.text import TextTokens
from components.diffusion.denoiser import conditioned
from components.diffusion.mean_flow import mean_flow
from components.diffusion.samplers import consistency, noise_of
from components.generation.model_folder import Model
from components.randomness import SampleSeed, sample_seeds
from components.training.loss import Batch

Score = Callable[[Tensor], float]  # of samples along these times, (N + 1,): the lower the better
GOLDEN = (math.sqrt(5) - 1) / 2


def tune_student(
    student: Model, batches: Iterable[Batch], steps: Collection[int], seed: int
) -> dict[int, tuple[float, ...]]:
    """The times at which a student's images, of these captions, are most like the images they describe.

    That is, of least energy distance to them, of latents where it has an autoencoder, summed over sizes; each
    try from the same noise. Batches: see FlowLoss.
    """
    device = next(student.network.parameters()).device
    parts, first = [], 0
    for batch in batches:
        x_0 = batch["x_0"].to(device)
        text = TextTokens(batch["text"], batch["mask"]).to(device)
        parts.append((x_0, text, sample_seeds(seed, len(x_0), first)))
        first += len(x_0)
    by_shape: dict[torch.Size, list[int]] = {}
    for number, (x_0, _, _) in enumerate(parts):
        by_shape.setdefault(x_0.shape[1:], []).append(number)
    groups = [
        numbers for numbers in by_shape.values() if sum(len(parts[number][0]) for number in numbers) > 1
    ]
    truths = [torch.cat([parts[number][0] for number in numbers]) for numbers in groups]

    def score(times: Tensor) -> float:
        latents = [_sample(student, text, seeds, x_0.shape[1:], times) for x_0, text, seeds in parts]
        samples = [torch.cat([latents[number] for number in numbers]) for numbers in groups]
        pairs = zip(samples, truths, strict=True)
        return sum(energy_distance(ours.flatten(1), truth.flatten(1)) for ours, truth in pairs)

    return tune_times(score, steps)


@torch.no_grad()
def _sample(
    student: Model, text: TextTokens, seeds: list[SampleSeed], shape: torch.Size, times: Tensor
) -> Tensor:
    """Latents (B, C, h, w) of these texts along the times."""

    def noise(step: int) -> Tensor:
        return noise_of(seeds, shape, f"tuning-{step}").to(text.mask.device)

    if student.card.kind == "mean_flow":
        return mean_flow(student.denoiser, student.network, text, noise(0), times)
    return consistency(conditioned(student.denoiser, text), noise(0), times, noise)


def tune_times(score: Score, steps: Collection[int], evaluations: int = 10) -> dict[int, tuple[float, ...]]:
    """Times from 1 to 0 for each number of steps: {2: (1, t, 0), ...}.

    Greedily, as in the paper: a number of steps has all the times of one less, and between the last of them
    and the data one more, which golden-section search places in so many evaluations of the score.
    """
    times, tuned = [1.0], {}
    for count in range(1, max(steps, default=0) + 1):
        if count > 1:
            before = tuple(times)
            added = golden_section(
                lambda t, before=before: score(torch.tensor([*before, t, 0.0])),  # type: ignore[misc]  # no type for a default
                0.0,
                times[-1],
                evaluations,
            )
            times.append(added)
        if count in steps:
            tuned[count] = (*times, 0.0)
    return tuned


def golden_section(value: Callable[[float], float], low: float, high: float, evaluations: int) -> float:
    """Where in (low, high) a function with one minimum is least, to about .62^evaluations of the interval.

    Kiefer 1953: each evaluation narrows the interval by the golden ratio.
    """
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = value(left), value(right)
    for _ in range(evaluations - 2):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = value(right)
    return left if at_left <= at_right else right


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E||a - b|| - E||a - a'|| - E||b - b'|| of the rows of a (N, D) and b (M, D), unbiased.

    Zero on average between samples of one distribution, positive for two (Székely 2013, Eq. 2.2).
    """
    between = torch.cdist(a, b).mean()
    within = [torch.cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(2 * between - within[0] - within[1])
