"""What only the whole corpus can decide: the judge's threshold, duplicates, and the best share by score.

The result depends on the planned order of the corpus only, never on the order in which fragments were done.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.filtering.duplicates import DuplicateRules, Hashed, find_duplicates


@dataclass(frozen=True)
class MeasuredRecord:
    """What the selection sees of a record.

    score: the judge's cosine of image and alt text; None where the text was dropped, so that only the
    captions will be judged.
    """

    key: str
    sha256: str
    phash: str
    score: float | None


def select(
    rows: Sequence[MeasuredRecord],
    duplicates: DuplicateRules,
    judge_threshold: float | None,
    judge_keep_fraction: float | None,
) -> dict[int, Rejection]:
    """The rows that do not go on, by index. Each rule sees only what those before it left.

    The threshold comes before the duplicates, so that an image whose first copy has a text that does not fit
    is still there in a later copy; the share comes last, so that copies do not count in it. A record without
    a score is under no threshold and no share, and of copies one with a text is the first.
    """
    rejected: dict[int, Rejection] = {}
    if judge_threshold is not None:
        for index, row in enumerate(rows):
            if row.score is not None and not row.score >= judge_threshold:  # so that a NaN fails, too
                rejected[index] = _scored(row, f"the threshold {judge_threshold:g}")
    left = [index for index in range(len(rows)) if index not in rejected]
    left.sort(key=lambda index: rows[index].score is None)  # stable: in corpus order beside that
    hashes = [Hashed(rows[index].sha256, rows[index].phash) for index in left]
    for position, duplicate in find_duplicates(hashes, duplicates).items():
        reason = Reason.DUPLICATE if duplicate.exact else Reason.NEAR_DUPLICATE
        rejected[left[position]] = Rejection(reason, f"of {rows[left[duplicate.of]].key}")
    if judge_keep_fraction is not None:
        scores = {index: score for index in left if (score := rows[index].score) is not None}
        best = sorted(scores.keys() - rejected.keys(), key=lambda index: (-scores[index], rows[index].key))
        for index in best[math.ceil(judge_keep_fraction * len(best)) :]:
            rejected[index] = _scored(rows[index], f"the best {judge_keep_fraction:.0%}")
    return rejected


def _scored(row: MeasuredRecord, limit: str) -> Rejection:
    return Rejection(Reason.JUDGE_SCORE, f"{row.score:.3f} is below {limit}")
