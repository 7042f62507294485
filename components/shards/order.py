"""The order in which samples are served: a pure function of (seed, epoch) over given tars and lanes.

Positions count samples over all epochs: position p belongs to epoch p // N. In an epoch the tars come in a
random order and the samples of each tar in a random order. That line, closed to a ring so that no tar is
favoured by its length, is cut at a random place into `lanes` equal stretches, and successive positions take
one sample from each stretch in turn. So a batch mixes as many tars as there are lanes, one reader keeps only
`lanes` tars open, and ranks that share the lanes share no sample (the canonical nodes of mosaicml/streaming).
Nothing is stored: any position is found directly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.randomness import derive_seed

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Located:
    """Where some positions lie: per position the tar, the sample in it, and the epoch."""

    shards: Indices  # (n,)
    samples: Indices  # (n,)
    epochs: Indices  # (n,)


@dataclass(frozen=True)
class _Epoch:
    """The tars of one epoch in their order, and where each begins on the line of all samples."""

    number: int
    shards: Indices  # (S,)
    starts: Indices  # (S,)
    cut: int  # where on the line the first lane begins


class SampleOrder:
    """counts: samples of each tar. lanes: stretches that are read side by side."""

    def __init__(self, counts: Sequence[int], *, seed: int, lanes: int) -> None:
        self.counts = np.asarray(counts, dtype=np.int64)
        self.total = int(self.counts.sum())
        self.seed = seed
        self.lanes = lanes
        self._latest: _Epoch | None = None

    def locate(self, positions: Indices) -> Located:
        """Find the samples at some positions, 0-based and over all epochs."""
        epochs, within = np.divmod(positions, self.total)
        shards, samples = np.empty_like(positions), np.empty_like(positions)
        for number in np.unique(epochs):
            chosen = epochs == number
            shards[chosen], samples[chosen] = self._locate_in_epoch(int(number), within[chosen])
        return Located(shards, samples, epochs)

    def _locate_in_epoch(self, number: int, within: Indices) -> tuple[Indices, Indices]:
        epoch = self._epoch(number)
        row, lane = np.divmod(within, self.lanes)
        short, longer = divmod(self.total, self.lanes)  # the first `longer` lanes hold one sample more
        on_line = (epoch.cut + lane * short + np.minimum(lane, longer) + row) % self.total
        slots = np.searchsorted(epoch.starts, on_line, side="right") - 1
        shards, samples = epoch.shards[slots], on_line - epoch.starts[slots]
        for shard in np.unique(shards):
            chosen = shards == shard
            order = permutation(derive_seed(self.seed, "samples", number, int(shard)), self.counts[shard])
            samples[chosen] = order[samples[chosen]]
        return shards, samples

    def _epoch(self, number: int) -> _Epoch:
        if self._latest is None or self._latest.number != number:
            shards = permutation(derive_seed(self.seed, "shards", number), len(self.counts))
            starts = np.cumsum(self.counts[shards]) - self.counts[shards]
            cut = derive_seed(self.seed, "cut", number) % self.total
            self._latest = _Epoch(number, shards, starts, cut)
        return self._latest


def permutation(seed: int, n: int) -> Indices:
    """A permutation of range(n). From raw bits, whose stream numpy promises never to change (NEP 19)."""
    return np.argsort(np.random.PCG64(seed).random_raw(int(n)), kind="stable")
