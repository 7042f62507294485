"""Our tars are webdataset's, written nearly as fast as by tarfile alone, and read at a small price."""

from tar_cost import measure


def test_writing_and_streaming_tars_cost_little_more_than_plain_python():
    costs = measure(side=64, samples=200)
    assert costs.write < 1.6 * costs.peer_write
    assert costs.stream < 1.8 * costs.peer_stream
