"""The order: every sample once an epoch, found directly at any position, read from few tars at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shards.order import SampleOrder, permutation

COUNTS = st.lists(st.integers(1, 30), min_size=1, max_size=12)
LANES = st.sampled_from([1, 2, 3, 4, 8, 16])


@settings(max_examples=200, deadline=None)
@given(COUNTS, LANES, st.integers(0, 2**63))
def test_every_sample_comes_exactly_once_an_epoch(counts, lanes, seed):
    order = SampleOrder(counts, seed=seed, lanes=lanes)
    everything = {(shard, sample) for shard, count in enumerate(counts) for sample in range(count)}
    located = order.locate(np.arange(3 * order.total))
    served = list(zip(located.shards.tolist(), located.samples.tolist(), strict=True))
    for epoch in range(3):
        of_epoch = slice(epoch * order.total, (epoch + 1) * order.total)
        assert set(served[of_epoch]) == everything
        assert set(located.epochs[of_epoch].tolist()) == {epoch}


@settings(max_examples=100, deadline=None)
@given(COUNTS, LANES, st.lists(st.integers(0, 10**12), min_size=1, max_size=20))
def test_a_position_means_the_same_however_it_is_asked_for(counts, lanes, positions):
    together = SampleOrder(counts, seed=7, lanes=lanes).locate(np.array(positions))
    for i, position in enumerate(positions):
        alone = SampleOrder(counts, seed=7, lanes=lanes).locate(np.array([position]))
        assert (alone.shards[0], alone.samples[0], alone.epochs[0]) == (
            together.shards[i],
            together.samples[i],
            together.epochs[i],
        )


@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_a_lane_reads_tar_after_tar_and_returns_to_none(lanes):
    order = SampleOrder([50] * 40, seed=3, lanes=lanes)
    for lane in range(lanes):
        shards = order.locate(np.arange(lane, order.total, lanes)).shards.tolist()
        visits = [shard for i, shard in enumerate(shards) if i == 0 or shards[i - 1] != shard]
        assert len(visits) <= 40 // lanes + 1  # the first tar of a lane may also be its last


def test_epochs_and_seeds_have_orders_of_their_own():
    def epoch(seed: int, number: int) -> list[tuple[int, int]]:
        order = SampleOrder([20, 20], seed=seed, lanes=2)
        located = order.locate(np.arange(40 * number, 40 * (number + 1)))
        return list(zip(located.shards.tolist(), located.samples.tolist(), strict=True))

    assert epoch(1, 0) == epoch(1, 0)
    assert len({tuple(epoch(seed, number)) for seed in range(3) for number in range(3)}) == 9


def test_where_a_sample_comes_in_an_epoch_is_uniform():
    """Chi-squared over 600 epochs: sample 0 of the first tar comes in each fifth of the epoch alike."""
    order = SampleOrder([7, 13, 5, 25], seed=11, lanes=2)
    located = order.locate(np.arange(600 * order.total))
    places = np.flatnonzero((located.shards == 0) & (located.samples == 0)) % order.total
    observed, expected = np.bincount(places * 5 // order.total, minlength=5), 120
    assert ((observed - expected) ** 2 / expected).sum() < 18.5  # p = .001 with 4 degrees of freedom


def test_the_permutation_is_known_for_ever():
    """A change here breaks the resume of every run that was started before it."""
    assert permutation(2026, 10).tolist() == [7, 0, 9, 4, 3, 2, 1, 8, 5, 6]
