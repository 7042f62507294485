"""Which record goes to which tar, settled before any work starts.

The tars are planned from the number of rows of each part alone. The parts are shuffled and dealt into groups;
each group's training records are dealt by key among a few tars, so that a tar holds records of many parts
and needs to read only one group. Held-out records, a share of all keys, are gathered over larger groups into
tars of their own. Every part is read a bounded number of times, however large the corpus is. With buckets
(buckets.py) each is planned so by itself, from the number of its rows in each part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from components.image_size import ImageSize
from components.randomness import derive_seed
from components.shards.index import HOLDOUT, TRAIN, Split
from components.shards.order import permutation

HOLDOUT_SEED = 0  # never a run's: a key is held out in every run and snapshot, or in none


@dataclass(frozen=True)
class PlannedTar:
    """One tar to be: the parts (by number) that it reads, and its number among the tars of its group."""

    name: str
    split: Split
    parts: tuple[int, ...]
    number: int
    group: int  # tars in it
    bucket: ImageSize | None = None


def plan_tars(
    rows: Sequence[int], *, seed: int, holdout_fraction: float, samples_per_tar: int, tars_per_group: int
) -> list[PlannedTar]:
    """The tars of parts with so many rows. samples_per_tar: about what each will hold.

    tars_per_group: tars that share one group of parts, and times that each part is read for training.
    """
    training = [row * (1 - holdout_fraction) for row in rows]
    held_out = [row * holdout_fraction for row in rows]
    return [
        *_tars_of(TRAIN, training, samples_per_tar, tars_per_group, seed),
        *_tars_of(HOLDOUT, held_out, samples_per_tar, 1, seed),
    ]


def plan_buckets(
    rows: Mapping[ImageSize | None, Sequence[int]],
    *,
    seed: int,
    holdout_fraction: float,
    samples_per_tar: int,
    tars_per_group: int,
) -> list[PlannedTar]:
    """The same where each bucket has tars of its own. rows: of each bucket in each part."""
    tars = [
        replace(tar, bucket=bucket)
        for bucket, of_bucket in rows.items()
        for tar in plan_tars(
            of_bucket,
            seed=seed,
            holdout_fraction=holdout_fraction,
            samples_per_tar=samples_per_tar,
            tars_per_group=tars_per_group,
        )
    ]
    numbers = {TRAIN: count(), HOLDOUT: count()}
    return [replace(tar, name=_name(tar.split, next(numbers[tar.split]))) for tar in tars]


def is_held_out(key: str, fraction: float) -> bool:
    """Whether a record belongs to the held-out split: a function of its key alone."""
    return derive_seed(HOLDOUT_SEED, "holdout", key) / 2**63 < fraction


def number_in_group(key: str, tars: int, seed: int) -> int:
    """Which of a group's tars a record goes to."""
    return derive_seed(seed, "bucket", key) % tars


def _tars_of(
    split: Split, samples: Sequence[float], per_tar: int, per_group: int, seed: int
) -> list[PlannedTar]:
    """samples: expected of each part in this split. Groups are equal to within a part."""
    total = sum(samples)
    if not total:
        return []
    groups: list[list[int]] = [[] for _ in range(max(1, round(total / (per_tar * per_group))))]
    before = 0.0
    for part in permutation(derive_seed(seed, "parts"), len(samples)).tolist():
        middle = before + samples[part] / 2
        if samples[part]:
            groups[min(int(middle / total * len(groups)), len(groups) - 1)].append(part)
        before += samples[part]
    tars: list[PlannedTar] = []
    for group in filter(None, groups):
        size = max(1, round(sum(samples[part] for part in group) / per_tar))
        for number in range(size):
            name = _name(split, len(tars))
            tars.append(PlannedTar(name, split, tuple(sorted(group)), number, size))
    return tars


def _name(split: Split, number: int) -> str:
    return f"{split}-{number:05d}"
