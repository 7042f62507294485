"""The exact-resume loader: batches of images and drawn captions from verified tars.

Time is `images_seen`, counted over all ranks: `batches(n)` gives exactly what an uninterrupted run gives
after n images. The order is order.py's; which caption is seen is drawn from (seed, key, epoch). Within each
window of batches, samples are grouped by caption length, so that batches need little padding. Every batch
is full: an epoch's last one is completed from the next epoch. Ranks share the lanes, and for every number
of ranks that divides the lanes the batches hold the same samples. Each bucket's tars are served so by
themselves, and buckets.py says which bucket a batch is of. Precomputed latents and texts' features
(stored_features.py) are read in place of images and captions on `reading`.
"""

import copy
import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from components.errors import InputError
from components.image_size import ImageSize
from components.randomness import derive_seed
from components.shards.blend import Blend, draw_caption
from components.shards.buckets import BatchSchedule
from components.shards.index import TRAIN, Location, PlacedShard, Split, find_shards
from components.shards.open_shard import OpenShard, Pixels
from components.shards.order import SampleOrder, permutation
from components.shards.prefetch import ahead
from components.shards.stored_features import features_of, unpack_latent, unpack_text
from components.shards.writer import LATENT_EXTENSION, TEXT_EXTENSION

if TYPE_CHECKING:
    from torch import Tensor

LANES = 8  # tars read side by side, and the most ranks that see the same batches as one rank
WINDOW = 16  # batches that are grouped by caption length together


@dataclass(frozen=True)
class CaptionedImages:
    """A batch: one rank's share of it. images_seen: of all ranks together, this batch included.

    latents, texts: stored features in float32, where the loader reads them; then `images` is (0,), or the
    captions need no encoder.
    """

    images: Pixels  # (B, H, W, 3)
    captions: list[str]
    kinds: list[str]  # which caption each is, by name
    keys: list[str]
    epochs: list[int]  # how often each sample was seen before
    images_seen: int
    latents: "Tensor | None" = None  # (B, C, h, w)
    texts: "list[Tensor] | None" = None  # (L, D) each


class ShardLoader:
    """Serves one split of the tars that the indexes list, for ever.

    batch_size: samples per batch, over all ranks. image_size: side of the square images, pixels, of tars of
    no bucket; those of a bucket have its size.
    lanes: see order.py; a divisor of batch_size and a multiple of world_size; by default LANES if that fits.
    window: batches per group of similar caption lengths; 1 groups nothing. cache_mb: if all images, decoded
    and resized, take less than this, they are kept in memory and decoded once; else tars stream, with about
    lanes / world_size of each bucket in memory. workers: threads that read and decode ahead; 0 works in the
    caller.
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
        self.stored = features_of(index_paths)
        self.latents = self.texts = False
        if not self.shards:
            raise InputError(
                f"{', '.join(map(str, index_paths))}: no {split} samples; every record was rejected upstream"
            )
        self._buckets = _by_bucket(self.shards, ImageSize.square(image_size), seed, self.lanes)
        self.schedule = BatchSchedule([bucket.order.total for bucket in self._buckets], batch_size, seed)
        self.samples = sum(self.schedule.samples)  # of one epoch
        self.cache_bytes = cache_mb * 2**20
        self.cached = self._decoded_bytes <= self.cache_bytes
        self._cache: list[_Opened] = [{} for _ in self._buckets]

    @property
    def sizes(self) -> tuple[ImageSize, ...]:
        """Of the images that it serves, each once."""
        return tuple(bucket.size for bucket in self._buckets)

    @property
    def _decoded_bytes(self) -> int:
        return sum(bucket.order.total * bucket.size.pixels * 3 for bucket in self._buckets)

    @property
    def digest(self) -> str:
        """sha256 (hex) over the tars' hashes: what data this is."""
        return hashlib.sha256("".join(s.shard.sha256 for s in self.shards).encode()).hexdigest()

    def reading(self, *, latents: bool, texts: bool) -> "ShardLoader":
        """This loader, giving the stored latents in place of images, and the stored features of captions."""
        if (latents, texts) == (self.latents, self.texts):
            return self
        other = copy.copy(self)
        other.latents, other.texts, other._cache = latents, texts, [{} for _ in self._buckets]
        images = 0 if latents else self._decoded_bytes
        other.cached = images + sum(s.shard.bytes for s in self.shards) <= self.cache_bytes
        return other

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
        with ExitStack() as stack:
            reader = decoders = None
            if self.workers:
                reader = stack.enter_context(ThreadPoolExecutor(1))  # one: windows are read in order
                decoders = stack.enter_context(ThreadPoolExecutor(self.workers))
            starts = self.schedule.before(first)
            streams = [self._picks(number, start, reader) for number, start in enumerate(starts)]
            picks = (next(streams[number]) for number in self.schedule.buckets_from(first))
            yield from ahead(decoders, self._assemble, zip(count(first), picks), 2 * self.workers)

    def _picks(self, number: int, first: int, reader: ThreadPoolExecutor | None) -> Iterator[list["_Pick"]]:
        """What this rank's batches of a bucket hold, from its batch `first` on."""
        bucket, opened = self._buckets[number], self._cache[number] if self.cached else {}
        windows = ahead(reader, lambda w: self._window(bucket, w, opened), count(first // self.window), 1)
        return islice(chain.from_iterable(windows), first % self.window, None)

    def _window(self, bucket: "_Bucket", number: int, opened: "_Opened") -> list[list["_Pick"]]:
        """What this rank's batches of one window hold: a pure function of (seed, bucket, number)."""
        per_lane = self.window * self.batch_size // self.lanes
        lanes = np.arange(self.rank, self.lanes, self.world_size)[:, None]
        positions = (number * per_lane + np.arange(per_lane)) * self.lanes + lanes
        located = [bucket.order.locate(lane) for lane in positions]
        self._open(bucket, opened, {int(shard) for lane in located for shard in np.unique(lane.shards)})
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

    def _open(self, bucket: "_Bucket", opened: "_Opened", needed: set[int]) -> None:
        """Have the needed tars of a bucket open; when streaming, let go of its others."""
        if not self.cached:
            for shard in opened.keys() - needed:
                del opened[shard]
        for shard in sorted(needed - opened.keys()):
            decode = self.cached and not self.latents
            opened[shard] = OpenShard.read(
                bucket.shards[shard], bucket.size, decode, self.workers, self._extensions()
            )

    def _extensions(self) -> set[str]:
        """The stored features that batches are made of."""
        chosen = ((LATENT_EXTENSION, self.latents), (TEXT_EXTENSION, self.texts))
        return {extension for extension, read in chosen if read}

    def _pick(self, shard: "OpenShard", index: int, epoch: int) -> "_Pick":
        kind, text = draw_caption(self.blend, shard.captions[index], self.seed, shard.keys[index], epoch)
        return _Pick(shard, index, epoch, kind, text)

    def _assemble(self, numbered: tuple[int, list["_Pick"]]) -> CaptionedImages:
        number, picks = numbered
        images = [] if self.latents else [pick.shard.image(pick.sample) for pick in picks]
        return CaptionedImages(
            images=np.stack(images) if images else np.empty(0, np.uint8),
            captions=[pick.caption for pick in picks],
            kinds=[pick.kind for pick in picks],
            keys=[pick.shard.keys[pick.sample] for pick in picks],
            epochs=[pick.epoch for pick in picks],
            images_seen=(number + 1) * self.batch_size,
            latents=self._latents(picks) if self.latents else None,
            texts=[self._text(pick) for pick in picks] if self.texts else None,
        )

    def _latents(self, picks: Sequence["_Pick"]) -> "Tensor":
        import torch

        assert self.stored.latents is not None
        dtype = self.stored.latents.dtype
        files = [(pick.shard.feature(pick.sample, LATENT_EXTENSION), pick.where) for pick in picks]
        return torch.stack([unpack_latent(data, dtype, where) for data, where in files])

    def _text(self, pick: "_Pick") -> "Tensor":
        assert self.stored.texts is not None
        data = pick.shard.feature(pick.sample, TEXT_EXTENSION)
        return unpack_text(data, pick.kind, self.stored.texts.dtype, pick.where)


@dataclass(frozen=True)
class _Bucket:
    """The tars of one size, and the order of their samples."""

    size: ImageSize
    shards: Sequence[PlacedShard]
    order: SampleOrder


def _by_bucket(shards: Sequence[PlacedShard], default: ImageSize, seed: int, lanes: int) -> list[_Bucket]:
    """The tars by size, smaller heights first; default: the size of those of no bucket."""
    sizes = [placed.shard.bucket or default for placed in shards]
    buckets = []
    for size in sorted(set(sizes)):
        own = [placed for placed, bucket in zip(shards, sizes, strict=True) if bucket == size]
        order = SampleOrder([placed.shard.samples for placed in own], seed=seed, lanes=lanes)
        buckets.append(_Bucket(size, own, order))
    return buckets


_Opened = dict[int, OpenShard]  # the tars of a bucket that are in memory, by number


class _Pick(NamedTuple):
    """One sample of a batch to be."""

    shard: OpenShard
    sample: int
    epoch: int
    kind: str
    caption: str

    @property
    def where(self) -> str:
        """The tar and the key, for errors."""
        return f"{self.shard.path}: sample {self.shard.keys[self.sample]}"


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
