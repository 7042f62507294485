"""Buckets: the nearest size for an image; batches of one size that lose nothing and go on from anywhere."""

from collections import Counter
from itertools import islice

import pytest

from components.errors import InputError
from components.image_size import ImageSize
from components.shards.blend import Blend
from components.shards.buckets import BatchSchedule, nearest_bucket
from components.shards.index import load_index
from components.shards.loader import ShardLoader
from components.shards.reader import read_split

COUNTS, BUCKETS = [17, 9, 4, 13, 1], ["8x8", "12x6", "8x8", "6x12", "12x6"]
SIZES = (ImageSize(6, 12), ImageSize(8, 8), ImageSize(12, 6))


def loader_of(*indexes, **settings) -> ShardLoader:
    defaults = {"batch_size": 4, "image_size": 8, "seed": 5, "blend": Blend(), "window": 3}
    return ShardLoader(indexes, **{**defaults, **settings})


def take(loader: ShardLoader, count: int, images_seen: int = 0) -> list[tuple]:
    batches = islice(loader.batches(images_seen), count)
    return [(b.images.shape, b.images.tobytes(), b.captions, b.keys, b.images_seen) for b in batches]


@pytest.mark.parametrize(
    ("image", "bucket"),
    [
        ("100x100", "32x32"),
        ("7x4", "40x24"),
        ("640x380", "40x24"),
        ("380x640", "24x40"),
        ("1000x10", "40x24"),
        ("1290x1000", "32x32"),  # sqrt(40 / 24) = 1.29099
        ("1292x1000", "40x24"),
    ],
)
def test_an_image_goes_to_the_nearest_aspect_ratio_in_log(image, bucket):
    buckets = [ImageSize.parse(size) for size in ("32x32", "40x24", "24x40")]
    for order in (buckets, buckets[::-1]):
        assert str(nearest_bucket(ImageSize.parse(image), order)) == bucket


def test_of_sizes_of_one_ratio_the_largest_that_needs_no_enlarging_and_ties_are_fixed():
    sizes = [ImageSize.parse(size) for size in ("64x64", "32x32", "96x96")]
    chosen = {side: nearest_bucket(ImageSize.square(side), sizes).width for side in (20, 32, 63, 64, 500)}
    assert chosen == {20: 32, 32: 32, 63: 32, 64: 64, 500: 96}
    wide, tall = ImageSize.parse("40x24"), ImageSize.parse("24x40")
    assert nearest_bucket(ImageSize(50, 50), [wide, tall]) == wide
    assert nearest_bucket(ImageSize(50, 50), [tall, wide]) == tall


@pytest.mark.parametrize("text", ["32", "32x", "x32", "0x8", "8x08", "8 x 8", "-8x8", "8x8x8", "100000x8"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="write WIDTHxHEIGHT"):
        ImageSize.parse(text)


@pytest.mark.parametrize(("samples", "batch_size"), [([26, 10, 13], 4), ([1, 50], 8), ([3, 2], 16), ([9], 2)])
def test_each_epoch_s_batches_hold_each_bucket_s_records_and_no_batch_more(samples, batch_size):
    schedule = BatchSchedule(samples, batch_size, seed=3)
    order = list(islice(schedule.buckets_from(0), 200))
    for epochs in range(1, 10):
        given = [-(-epochs * count // batch_size) for count in samples]
        assert sorted(order[: sum(given)]) == sorted(b for b, count in enumerate(given) for _ in range(count))
    for number in range(150):
        assert schedule.before(number) == [order[:number].count(bucket) for bucket in range(len(samples))]
        assert list(islice(schedule.buckets_from(number), 50)) == order[number : number + 50]


def test_one_square_bucket_is_served_as_tars_without_one(make_shards):
    path = make_shards([17, 4, 9])
    before, index = take(loader_of(path), 60), load_index(path)
    square = tuple(shard.model_copy(update={"bucket": ImageSize(8, 8)}) for shard in index.shards)
    path.write_text(index.model_copy(update={"shards": square}).to_json())
    assert path.read_text().count('"bucket": "8x8"') == 3
    assert take(loader_of(path, image_size=16), 60) == before  # the tars say at which size


def test_a_batch_is_of_one_size_and_an_epoch_holds_every_record(make_shards):
    index = make_shards(COUNTS, buckets=BUCKETS)
    loader, records = loader_of(index), Counter(s.key for s in read_split(index, "train"))
    assert loader.sizes == SIZES and loader.samples == 44
    batches = take(loader, 44 * 12 // 4)  # 12 epochs: of 13, 21 and 10 records, in windows of 3 × 4
    assert {shape for shape, *_ in batches} == {(4, *size, 3) for size in SIZES}
    for epochs in range(1, 12):
        until = sum(-(-epochs * count // 4) for count in loader.schedule.samples)
        seen = Counter(key for *_, keys, _ in batches[:until] for key in keys)
        # A window is where the order within a bucket is settled: a sample may come so much later.
        assert sum(seen.values()) - epochs * 44 < 4 * len(SIZES)
    assert set(seen) == set(records)
    own = {key: shape for shape, _, _, keys, _ in batches for key in keys}
    assert all({own[key]} == {shape} for shape, _, _, keys, _ in batches for key in keys)


def test_with_windows_of_one_batch_each_record_comes_once_an_epoch(make_shards):
    index = make_shards([8, 12, 4], buckets=["8x8", "12x6", "6x12"])
    loader = loader_of(index, window=1)
    records = sorted(sample.key for sample in read_split(index, "train"))
    for epoch in range(4):
        keys = [key for *_, keys, _ in take(loader, 6, images_seen=24 * epoch) for key in keys]
        assert sorted(keys) == records


@pytest.mark.parametrize("cache_mb", [64, 0], ids=["cached", "streaming"])
def test_a_run_dropped_anywhere_among_buckets_goes_on_to_the_bit(make_shards, cache_mb):
    index = make_shards(COUNTS, buckets=BUCKETS)
    loader = loader_of(index, cache_mb=cache_mb)
    assert loader.cached == (cache_mb > 0)
    whole = take(loader, 30)
    for drop in range(0, 30, 3):
        assert take(loader_of(index, cache_mb=cache_mb), 30 - drop, images_seen=4 * drop) == whole[drop:]
    assert take(loader_of(index, cache_mb=cache_mb, workers=2), 30) == whole


def test_ranks_take_the_same_bucket_in_a_step_and_share_its_batch(make_shards):
    index = make_shards(COUNTS, buckets=BUCKETS)
    alone = take(loader_of(index), 30)
    ranks = [take(loader_of(index, rank=rank, world_size=2), 30) for rank in range(2)]
    for together, *shares in zip(alone, *ranks, strict=True):
        assert [share[0] for share in shares] == [(2, *together[0][1:])] * 2
        assert sorted(key for share in shares for key in share[3]) == sorted(together[3])


def test_tars_without_a_bucket_are_of_the_training_s_square(make_shards):
    old = make_shards([8], name="2026-11-19")
    new = make_shards([8, 8], name="2026-11-20", buckets=["8x8", "12x6"])
    loader = loader_of(old, new)
    assert loader.sizes == (ImageSize(6, 12), ImageSize(8, 8))
    assert loader.schedule.samples == [8, 16]
