"""The loader: exact resume, ranks that share everything and overlap nowhere, and no sample from a bad tar."""

import time
from itertools import islice

import numpy as np
import pytest

from components.shards.blend import Blend
from components.shards.decode import decode_square
from components.shards.loader import ShardLoader
from components.shards.reader import read_split

BLEND = Blend(alt=0.2, short=0.4, long=0.4)
SHAPES = [  # samples of each tar, batch size, lanes, window; together they cross every border many times
    ([17, 4, 9, 1, 12], 4, 4, 3),
    ([30], 5, 1, 4),
    ([3, 2], 16, 8, 2),  # a batch holds several epochs
    ([8, 8, 8, 8], 8, 2, 1),
    ([40, 7, 23], 12, 6, 5),
]


def loader_of(*indexes, **settings) -> ShardLoader:
    defaults = {"batch_size": 4, "image_size": 8, "seed": 5, "blend": BLEND}
    return ShardLoader(indexes, **{**defaults, **settings})


def seen(batch) -> tuple:
    return (batch.images.tobytes(), batch.captions, batch.kinds, batch.keys, batch.images_seen)


def take(loader, n, images_seen=0) -> list[tuple]:
    return [seen(batch) for batch in islice(loader.batches(images_seen), n)]


@pytest.mark.parametrize("cache_mb", [64, 0], ids=["cached", "streaming"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_run_dropped_anywhere_goes_on_as_if_it_had_not_been(make_shards, shape, cache_mb):
    counts, batch_size, lanes, window = shape
    index = make_shards(counts)
    settings = {"batch_size": batch_size, "lanes": lanes, "window": window}
    whole = take(loader_of(index, **settings, cache_mb=cache_mb), 40)
    resumed = loader_of(index, **settings, cache_mb=cache_mb)
    assert resumed.cached == (cache_mb > 0)
    for drop in range(40):
        assert take(resumed, 40 - drop, images_seen=drop * batch_size) == whole[drop:]


def test_cached_streamed_and_threaded_loaders_serve_the_same(make_shards):
    index = make_shards([17, 4, 9, 1, 12])
    cached = take(loader_of(index), 50, images_seen=12)
    for settings in ({"cache_mb": 0}, {"workers": 1}, {"workers": 3, "cache_mb": 0}):
        assert take(loader_of(index, **settings), 50, images_seen=12) == cached


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_sample_comes_once_an_epoch_and_every_batch_is_full(make_shards, shape):
    counts, batch_size, lanes, window = shape
    index = make_shards(counts)
    everything = sorted(sample.key for sample in read_split(index, "train"))
    loader = loader_of(index, batch_size=batch_size, lanes=lanes, window=window)
    # Windows are where the order is settled; after a whole number of both, every sample has come as often.
    n = int(np.lcm(loader.samples, window * batch_size))
    keys: list[str] = []
    for number, batch in enumerate(islice(loader.batches(), n // batch_size), start=1):
        assert batch.images.shape == (batch_size, 8, 8, 3)
        assert batch.images_seen == number * batch_size
        keys += batch.keys
    assert sorted(keys) == sorted(everything * (n // loader.samples))


def test_within_an_epoch_no_sample_comes_twice(make_shards):
    loader = loader_of(make_shards([16, 24, 8, 16]), window=4)  # 64 samples: 4 windows of 16
    for epoch in range(5):
        keys = [key for batch in take(loader, 16, images_seen=64 * epoch) for key in batch[3]]
        assert len(set(keys)) == 64


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_ranks_share_every_batch_and_overlap_nowhere(make_shards, world_size):
    index = make_shards([17, 4, 9, 1, 12])
    settings = {"batch_size": 16, "window": 3}
    alone = take(loader_of(index, **settings), 30)
    ranks = [take(loader_of(index, **settings, rank=r, world_size=world_size), 30) for r in range(world_size)]
    for together, *shares in zip(alone, *ranks, strict=True):
        assert all(len(share[3]) == 16 // world_size for share in shares)
        assert {share[4] for share in shares} == {together[4]}
        served = sorted(
            zip([k for s in shares for k in s[3]], [c for s in shares for c in s[1]], strict=True)
        )
        assert served == sorted(zip(together[3], together[1], strict=True))


def test_fewer_tars_than_ranks_and_workers_do_not_hang(make_shards):
    index = make_shards([3])
    started = time.monotonic()
    for rank in range(8):
        loader = loader_of(index, batch_size=8, rank=rank, world_size=8, workers=4, cache_mb=0)
        assert len(take(loader, 20)) == 20
    assert time.monotonic() - started < 60


def test_images_and_captions_are_those_of_the_sample(make_shards):
    index = make_shards([6, 5])
    samples = {sample.key: sample for sample in read_split(index, "train")}
    columns = {"alt": "alt_text", "short": "caption_short", "long": "caption_long"}
    for batch in islice(loader_of(index).batches(), 20):
        for image, caption, kind, key in zip(
            batch.images, batch.captions, batch.kinds, batch.keys, strict=True
        ):
            assert caption == samples[key].meta[columns[kind]]
            assert (image == decode_square(samples[key].image, 8)).all()


def test_captions_are_drawn_by_the_blend_and_anew_each_epoch(make_shards):
    loader = loader_of(make_shards([50, 50]), batch_size=10, window=2)
    drawn: dict[str, list[str]] = {}
    for batch in islice(loader.batches(), 400):  # 40 epochs of 100 samples
        for key, kind in zip(batch.keys, batch.kinds, strict=True):
            drawn.setdefault(key, []).append(kind)
    kinds = [kind for sequence in drawn.values() for kind in sequence]
    for kind, share in (("alt", 0.2), ("short", 0.4), ("long", 0.4)):
        assert abs(kinds.count(kind) / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5
    assert len({tuple(sequence) for sequence in drawn.values()}) == 100


def test_batches_of_like_captions_need_less_padding(make_shards):
    index = make_shards([256, 256])

    def padding(window: int) -> float:
        lengths = [
            [len(c) for c in batch[1]] for batch in take(loader_of(index, window=window, lanes=1), 128)
        ]
        return 1 - sum(map(sum, lengths)) / sum(max(each) * len(each) for each in lengths)

    assert padding(16) < 0.25 * padding(1)


def test_the_seed_changes_order_and_captions(make_shards):
    index = make_shards([40])
    one, other = take(loader_of(index), 10), take(loader_of(index, seed=6), 10)
    assert [batch[3] for batch in one] != [batch[3] for batch in other]


def test_snapshots_are_one_corpus_wherever_they_lie(make_shards):
    first, second = make_shards([9, 4], name="2026-11-19"), make_shards([7], name="2026-11-20")
    both = loader_of(first, second)
    assert both.samples == 20
    assert take(loader_of(second, first), 30) == take(both, 30)
    assert loader_of(second, first).digest == both.digest != loader_of(first).digest
    with pytest.raises(ValueError, match=r"the same tar as .*; name it once"):
        loader_of(first, first)


def test_splits_are_kept_apart(make_shards):
    train, holdout = make_shards([8]), make_shards([3], name="holdout", split="holdout")
    assert loader_of(train, holdout).samples == 8
    assert loader_of(train, holdout, split="holdout").samples == 3
    with pytest.raises(ValueError, match=r"index\.json: no holdout samples"):
        loader_of(train, split="holdout")


@pytest.mark.parametrize("cache_mb", [64, 0], ids=["cached", "streaming"])
def test_no_sample_of_a_damaged_tar_is_served(make_shards, cache_mb):
    index = make_shards([20, 20, 20])
    bad = index.parent / "train-00001.tar"
    theirs = {sample.key for sample in islice(read_split(index, "train"), 20, 40)}
    whole = bad.read_bytes()
    for byte in range(0, len(whole), len(whole) // 40):
        bad.write_bytes(whole[:byte] + bytes([whole[byte] ^ 1]) + whole[byte + 1 :])
        served: set[str] = set()
        with pytest.raises(ValueError, match=r"train-00001\.tar: damaged") as caught:
            for batch in islice(loader_of(index, cache_mb=cache_mb).batches(), 40):
                served.update(batch.keys)
        assert not served & theirs
        assert "\n" not in str(caught.value)


def test_a_torn_or_missing_tar_is_found_before_anything_is_served(make_shards):
    index = make_shards([20, 20, 20])
    bad = index.parent / "train-00002.tar"
    bad.write_bytes(bad.read_bytes()[:-512])
    with pytest.raises(ValueError, match=r"train-00002\.tar: torn: \d+ bytes, the index lists \d+"):
        loader_of(index)
    bad.unlink()
    with pytest.raises(ValueError, match=r"train-00002\.tar: this tar of the index is missing"):
        loader_of(index)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a shard index"),
        ("[]", "not a shard index"),
        ('{"shards": [{"name": "../../x.tar"}]}', r"shards\.0\.name"),
        ('{"shards": [], "extra": 1}', "extra"),
        ('{"version": 2, "shards": []}', "version"),
    ],
)
def test_a_bad_index_is_one_line_that_names_it(tmp_path, text, message):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        loader_of(tmp_path / "index.json")
    assert str(tmp_path / "index.json") in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="there is no shard index here"):
        loader_of(tmp_path / "nowhere" / "index.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 6, "lanes": 4}, "batch_size 6 must be a multiple of the 4 lanes"),
        ({"batch_size": 6, "world_size": 4, "rank": 0}, "batch_size 6 must be a multiple of the 4 lanes"),
        ({"lanes": 2, "world_size": 4, "rank": 0}, "2 lanes must be a multiple of the 4 ranks"),
        ({"rank": 1}, r"rank 1 of 1 ranks: it must be 0\.\.0"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(make_shards, settings, message):
    with pytest.raises(ValueError, match=message):
        loader_of(make_shards([8]), **settings)


def test_a_resume_point_between_batches_is_refused(make_shards):
    with pytest.raises(ValueError, match="images_seen 6 is not a multiple of batch_size 4"):
        loader_of(make_shards([8])).batches(6)
