"""The judge's score against its limits: a threshold, and the best share of what the other rules left."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason


@dataclass(frozen=True)
class ScoreLimits:
    """threshold: the least score. share: of the best records, the last of which has `last_score`, `last_key`.

    Each limit is None where there is none. A score that is no number never passes; None, of a record whose
    text was dropped, always does: its captions are judged later.
    """

    threshold: float | None = None
    share: float | None = None
    last_score: float = -math.inf
    last_key: str = ""

    def below_threshold(self, score: float | None) -> Rejection | None:
        """Applies before duplicates, so that a copy whose text fits stands in for a first one without."""
        if score is None or self.threshold is None or score >= self.threshold:
            return None
        return _scored(score, f"the threshold {self.threshold:g}")

    def beyond_share(self, score: float | None, key: str) -> Rejection | None:
        """Applies last, so that copies do not count in the share."""
        if score is None or self.share is None or (-score, key) <= (-self.last_score, self.last_key):
            return None
        return _scored(score, f"the best {self.share:.0%}")


def best_share(
    scores: npt.NDArray[np.float32],
    share: float,
    threshold: float | None,
    keys_at: Callable[[npt.NDArray[np.intp]], list[str]],
) -> ScoreLimits:
    """The limits that keep the best `share` of these scores, of equal ones those with the lowest keys.

    keys_at: the keys of some rows, called for those that have the last score that is kept.
    """
    keep = math.ceil(share * len(scores))
    if not keep:
        return ScoreLimits(threshold, share)
    comparable = np.nan_to_num(scores, nan=-np.inf)
    last = np.partition(comparable, len(scores) - keep)[len(scores) - keep]
    better = int((comparable > last).sum())
    keys = sorted(keys_at(np.nonzero(comparable == last)[0]))
    return ScoreLimits(threshold, share, float(last), keys[keep - better - 1])


def _scored(score: float, limit: str) -> Rejection:
    return Rejection(Reason.JUDGE_SCORE, f"{score:.3f} is below {limit}")
