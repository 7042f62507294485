"""The plan: every record in exactly one tar, tars of about the size asked for, bounded reading."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.randomness import derive_seed
from components.shards.plan import PlannedTar, is_held_out, number_in_group, plan_tars

KEYS = [f"{derive_seed(0, 'key', i):016x}" for i in range(20_000)]


def tars_of(planned: list[PlannedTar], key: str, part: int, fraction: float) -> list[str]:
    """The tars that take a record of that key and part: there must be one."""
    split = "holdout" if is_held_out(key, fraction) else "train"
    return [
        tar.name
        for tar in planned
        if tar.split == split and part in tar.parts and number_in_group(key, tar.group, 3) == tar.number
    ]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.integers(0, 60), max_size=12),
    fraction=st.sampled_from([0.01, 0.04, 0.5]),
    samples=st.integers(1, 300),
    group=st.integers(1, 5),
)
def test_every_record_goes_to_exactly_one_tar(rows, fraction, samples, group):
    planned = plan_tars(
        rows, seed=3, holdout_fraction=fraction, samples_per_tar=samples, tars_per_group=group
    )
    assert len({tar.name for tar in planned}) == len(planned)
    keys = iter(KEYS)
    for part, count in enumerate(rows):
        for _ in range(count):
            assert len(tars_of(planned, next(keys), part, fraction)) == 1


@pytest.mark.parametrize("tars_per_group", [1, 4])
def test_tars_are_about_as_large_as_asked_for_and_mix_many_parts(tars_per_group):
    planned = plan_tars(
        [100] * 200, seed=3, holdout_fraction=0.04, samples_per_tar=1000, tars_per_group=tars_per_group
    )
    sizes = Counter(tars_of(planned, key, i // 100, 0.04)[0] for i, key in enumerate(KEYS))
    train = [size for name, size in sizes.items() if name.startswith("train")]
    assert len(train) == 19 + (tars_per_group == 4)
    assert sum(train) == pytest.approx(19_200, rel=0.01)
    assert all(800 < size < 1200 for size in train)
    assert sizes["holdout-00000"] == pytest.approx(800, abs=100)
    assert {len(tar.parts) for tar in planned if tar.split == "train"} <= set(
        range(10 * tars_per_group, 11 * tars_per_group + 1)
    )


def test_the_reading_does_not_grow_with_the_corpus():
    for parts in (50, 500, 5000):
        planned = plan_tars(
            [500] * parts, seed=0, holdout_fraction=0.04, samples_per_tar=1000, tars_per_group=4
        )
        reads = Counter(part for tar in planned for part in tar.parts)
        assert max(reads.values()) <= 6  # 4 or 5 for training, 1 for the held-out
        assert max(len(tar.parts) for tar in planned) <= 60


def test_a_key_is_held_out_at_every_larger_share_and_everywhere():
    small = {key for key in KEYS if is_held_out(key, 0.02)}
    large = {key for key in KEYS if is_held_out(key, 0.05)}
    assert small < large
    assert len(small) / len(KEYS) == pytest.approx(0.02, abs=0.004)
    assert len(large) / len(KEYS) == pytest.approx(0.05, abs=0.006)
