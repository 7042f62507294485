"""The upsampler's own decoding takes less time than transformers', and far less than reading all again."""

from decoding_against_transformers import measure


def test_decoding_by_chunks_takes_less_time_than_token_by_token():
    costs = measure(rows=32, words=12)
    assert costs.ours < 0.8 * costs.cached
    assert costs.ours < 0.4 * costs.uncached
