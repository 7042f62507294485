"""webdataset writes and reads our tars at a price that a training does not notice."""

from tar_cost import measure


def test_writing_and_streaming_through_webdataset_cost_little_more_than_plain_python():
    costs = measure(side=64, samples=200)
    assert costs.write < 1.6 * costs.peer_write
    assert costs.stream < 1.8 * costs.peer_stream
