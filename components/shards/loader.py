"""The exact-resume loader: batches of images and drawn captions from verified tars.

Time is `images_seen`, counted over all ranks: `batches(n)` gives exactly what an uninterrupted run gives
after n images. The order is order.py's; which caption is seen is drawn from (seed, key, epoch). Within each
window of batches, samples are grouped by caption length, so that batches need little padding. Every batch
is full: an epoch's last one is completed from the next epoch. Ranks share the lanes, and for every number
of ranks that divides the lanes the batches hold the same samples.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.captioning.kinds import captions_of
from components.errors import InputError
from components.randomness import derive_seed
from components.shards.blend import Blend, draw_caption
from components.shards.decode import decode_square
from components.shards.index import TRAIN, Location, PlacedShard, Split, find_shards
from components.shards.order import SampleOrder, permutation
from components.shards.prefetch import ahead
from components.shards.reader import read_tar

LANES = 8  # tars read side by side, and the most ranks that see the same batches as one rank
WINDOW = 16  # batches that are grouped by caption length together

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CaptionedImages:
    """A batch: one rank's share of it. images_seen: of all ranks together, this batch included."""

    images: Pixels  # (B, H, W, 3)
    captions: list[str]
    kinds: list[str]  # which caption each is, by name
    keys: list[str]
    epochs: list[int]  # how often each sample was seen before
    images_seen: int


class ShardLoader:
    """Serves one split of the tars that the indexes list, for ever.

    batch_size: samples per batch, over all ranks. image_size: side of the square images, pixels.
    lanes: see order.py; a divisor of batch_size and a multiple of world_size; by default LANES if that fits.
    window: batches per group of similar caption lengths; 1 groups nothing. cache_mb: if all images, decoded
    and resized, take less than this, they are kept in memory and decoded once; else tars stream, with about
    lanes / world_size of them in memory. workers: threads that read and decode ahead; 0 works in the caller.
    Raises InputError for settings that do not fit each other and for tars that cannot be those listed.
    """

    def __init__(
        self,
        index_paths: Sequence[Location],
        *,
        batch_size: int,
        image_size: int,
        seed: int,
        blend: Blend,
        split: Split = TRAIN,
        rank: int = 0,
        world_size: int = 1,
        lanes: int | None = None,
        window: int = WINDOW,
        cache_mb: int = 1024,
        workers: int = 0,
    ) -> None:
        self.batch_size, self.image_size, self.seed, self.blend = batch_size, image_size, seed, blend
        self.rank, self.world_size, self.window, self.workers = rank, world_size, window, workers
        self.lanes = _fitting_lanes(lanes, batch_size, world_size)
        if not 0 <= rank < world_size:
            raise InputError(f"rank {rank} of {world_size} ranks: it must be 0..{world_size - 1}")
        self.shards = find_shards(index_paths, split)
        if not self.shards:
            raise InputError(
                f"{', '.join(map(str, index_paths))}: no {split} samples; every record was rejected upstream"
            )
        self.order = SampleOrder([s.shard.samples for s in self.shards], seed=seed, lanes=self.lanes)
        self.samples = self.order.total  # of one epoch
        self.cached = self.samples * image_size**2 * 3 <= cache_mb * 2**20
        self._cache: dict[int, _OpenShard] = {}

    @property
    def digest(self) -> str:
        """sha256 (hex) over the tars' hashes: what data this is."""
        return hashlib.sha256("".join(s.shard.sha256 for s in self.shards).encode()).hexdigest()

    def batches(self, images_seen: int = 0) -> Iterator[CaptionedImages]:
        """The batches that follow after `images_seen` images, a multiple of batch_size. Never ends."""
        first, partial = divmod(images_seen, self.batch_size)
        if partial or images_seen < 0:
            raise InputError(
                f"images_seen {images_seen} is not a multiple of batch_size {self.batch_size}; "
                "resume with the batch size of the run's start"
            )
        return self._batches(first)

    def _batches(self, first: int) -> Iterator[CaptionedImages]:
        opened = self._cache if self.cached else {}
        with ExitStack() as stack:
            reader = decoders = None
            if self.workers:
                reader = stack.enter_context(ThreadPoolExecutor(1))  # one: windows are read in order
                decoders = stack.enter_context(ThreadPoolExecutor(self.workers))
            windows = ahead(reader, lambda w: self._window(w, opened), count(first // self.window), 1)
            picks = islice(chain.from_iterable(windows), first % self.window, None)
            yield from ahead(decoders, self._assemble, zip(count(first), picks), 2 * self.workers)

    def _window(self, number: int, opened: dict[int, "_OpenShard"]) -> list[list["_Pick"]]:
        """What this rank's batches of one window hold: a pure function of (seed, number)."""
        per_lane = self.window * self.batch_size // self.lanes
        lanes = np.arange(self.rank, self.lanes, self.world_size)[:, None]
        positions = (number * per_lane + np.arange(per_lane)) * self.lanes + lanes
        located = [self.order.locate(lane) for lane in positions]
        self._open(opened, {int(shard) for lane in located for shard in np.unique(lane.shards)})
        batches: list[list[_Pick]] = [[] for _ in range(self.window)]
        share = self.batch_size // self.lanes
        for lane in located:
            indices = zip(lane.shards.tolist(), lane.samples.tolist(), lane.epochs.tolist(), strict=True)
            picks = [self._pick(opened[shard], sample, epoch) for shard, sample, epoch in indices]
            picks.sort(key=lambda pick: len(pick.caption))
            for at, batch in enumerate(batches):
                batch.extend(picks[at * share : (at + 1) * share])
        order = permutation(derive_seed(self.seed, "batches", number), self.window)
        return [batches[at] for at in order]

    def _open(self, opened: dict[int, "_OpenShard"], needed: set[int]) -> None:
        """Have the needed tars open; when streaming, let go of the others."""
        if not self.cached:
            for shard in opened.keys() - needed:
                del opened[shard]
        for shard in sorted(needed - opened.keys()):
            opened[shard] = _OpenShard.read(self.shards[shard], self.image_size, self.cached, self.workers)

    def _pick(self, shard: "_OpenShard", index: int, epoch: int) -> "_Pick":
        kind, text = draw_caption(self.blend, shard.captions[index], self.seed, shard.keys[index], epoch)
        return _Pick(shard, index, epoch, kind, text)

    def _assemble(self, numbered: tuple[int, list["_Pick"]]) -> CaptionedImages:
        number, picks = numbered
        return CaptionedImages(
            images=np.stack([pick.shard.image(pick.sample) for pick in picks]),
            captions=[pick.caption for pick in picks],
            kinds=[pick.kind for pick in picks],
            keys=[pick.shard.keys[pick.sample] for pick in picks],
            epochs=[pick.epoch for pick in picks],
            images_seen=(number + 1) * self.batch_size,
        )


@dataclass(frozen=True)
class _OpenShard:
    """A verified tar in memory: its images either encoded or all decoded and resized."""

    path: str
    size: int
    keys: list[str]
    captions: list[Mapping[str, str | None]]
    encoded: list[bytes]
    decoded: list[Pixels]

    @classmethod
    def read(cls, placed: PlacedShard, size: int, decode: bool, workers: int) -> "_OpenShard":
        path = str(placed.path)
        samples = read_tar(placed.path, placed.shard)
        shard = cls(
            path,
            size,
            [s.key for s in samples],
            [captions_of(s.meta) for s in samples],
            [s.image for s in samples],
            [],
        )
        if not decode:
            return shard
        with ThreadPoolExecutor(max(1, workers)) as pool:
            decoded = list(pool.map(shard.image, range(len(samples))))
        return cls(path, size, shard.keys, shard.captions, [], decoded)

    def image(self, index: int) -> Pixels:
        """(size, size, 3)"""
        if self.decoded:
            return self.decoded[index]
        try:
            return decode_square(self.encoded[index], self.size)
        except ValueError as error:
            raise InputError(f"{self.path}: sample {self.keys[index]} cannot be decoded: {error}") from error


class _Pick(NamedTuple):
    """One sample of a batch to be."""

    shard: _OpenShard
    sample: int
    epoch: int
    kind: str
    caption: str


def _fitting_lanes(lanes: int | None, batch_size: int, world_size: int) -> int:
    """The number of lanes; InputError if batch, lanes and ranks do not divide each other."""
    if lanes is None:
        lanes = math.gcd(batch_size, LANES)
        if lanes % world_size:
            lanes = world_size
    if batch_size % lanes:
        raise InputError(
            f"batch_size {batch_size} must be a multiple of the {lanes} lanes (of {world_size} ranks)"
        )
    if lanes % world_size:
        raise InputError(f"{lanes} lanes must be a multiple of the {world_size} ranks")
    return lanes
