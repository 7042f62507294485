"""The loader's benchmark runs, and the cache is worth having on any machine."""

from loader_against_peers import measure


def test_the_cache_is_far_faster_than_decoding_again():
    rates = measure(side=32, size=16, samples=512)
    assert rates["cached"] > 3 * rates["webdataset"]
    assert rates["streaming"] > 0.3 * rates["webdataset"]
