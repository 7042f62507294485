"""Bootstrap intervals of a mean over prompts, for one model and for the difference of two.

Prompts are resampled within each form (Efron 1979, stratified), so that every form keeps its weight. The
same verdicts, strata and seed give the same interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.errors import InputError
from components.randomness import derive_seed

RESAMPLES = 1000
LEVEL = 0.95  # of the interval


@dataclass(frozen=True)
class Interval:
    """The bootstrap's interval [low, high] of a mean, and the mean itself."""

    low: float
    high: float
    mean: float


def bootstrap(verdicts: Sequence[float], strata: Sequence[str], seed: int) -> Interval:
    """The interval of the mean of the strata's shares of correct prompts, each with the same weight.

    verdicts: 1 (True) where a prompt is correct, or any other number of each, of whose means this then is.
    strata: the form of each prompt. Where every verdict of every stratum is the same, low and high are the
    mean: no resample of them differs. Raises InputError for no verdicts, or not one stratum for each.
    """
    return _bootstrap(np.asarray(verdicts, np.float64), strata, seed)


def paired_bootstrap(
    candidate: Sequence[bool], champion: Sequence[bool], strata: Sequence[str], seed: int
) -> Interval:
    """The interval of (candidate - champion), as `bootstrap`, where row i of both is the same prompt.

    Pairing takes out how hard the prompts are: what both get right, or both wrong, adds no variance.
    Raises InputError where the rows are not as many, or there are none.
    """
    if len(candidate) != len(champion):
        raise InputError(
            f"{len(candidate)} and {len(champion)} verdicts cannot be paired; measure both models on the same"
            " prompts"
        )
    difference = np.asarray(candidate, np.float64) - np.asarray(champion, np.float64)
    return _bootstrap(difference, strata, seed)


def _bootstrap(values: npt.NDArray[np.float64], strata: Sequence[str], seed: int) -> Interval:
    if len(values) == 0 or len(values) != len(strata):
        raise InputError(
            f"{len(values)} verdicts and {len(strata)} strata; give one stratum for each of them"
        )
    names = list(dict.fromkeys(strata))
    means, resampled = 0.0, np.zeros(RESAMPLES)
    for name in names:
        own = values[[stratum == name for stratum in strata]]
        rng = np.random.default_rng(derive_seed(seed, "bootstrap", name))
        rows = rng.integers(0, len(own), size=(RESAMPLES, len(own)))
        means += float(own.mean()) / len(names)
        resampled += own[rows].mean(axis=1) / len(names)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), means)
