"""The cache of text features: bounded in bytes, least recently used out first, counted."""

import torch

from components.conditioning.feature_cache import FeatureCache

ROW = 4 * 4  # bytes of one token of four float32


def features(tokens: int) -> torch.Tensor:
    return torch.full((tokens, 4), float(tokens))


def test_what_was_put_comes_back_and_lookups_are_counted():
    cache = FeatureCache(10 * ROW)
    assert cache.get("a") is None
    cache.put("a", features(2))
    assert torch.equal(cache.get("a"), features(2))
    assert cache.get("b") is None
    assert (cache.hits, cache.misses, len(cache), cache.bytes) == (1, 2, 1, 2 * ROW)


def test_the_least_recently_used_go_when_there_are_too_many_bytes():
    cache = FeatureCache(6 * ROW)
    for text in "abc":
        cache.put(text, features(2))
    cache.get("a")
    cache.put("d", features(3))  # as much as two of them
    assert [text for text in "abcd" if cache.get(text) is not None] == ["a", "d"]
    assert cache.bytes == 5 * ROW


def test_what_is_larger_than_the_whole_cache_is_not_kept_and_evicts_nothing():
    cache = FeatureCache(4 * ROW)
    cache.put("a", features(1))
    cache.put("long", features(5))
    assert cache.get("long") is None and cache.get("a") is not None
    assert FeatureCache(0).get("a") is None


def test_a_text_put_twice_counts_once_and_clearing_forgets_all():
    cache = FeatureCache(10 * ROW)
    for _ in range(2):
        cache.put("a", features(2))
    assert cache.bytes == 2 * ROW
    cache.clear()
    assert (len(cache), cache.bytes, cache.get("a")) == (0, 0, None)
