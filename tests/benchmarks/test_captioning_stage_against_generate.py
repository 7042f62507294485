"""The captioning stage adds little to its captioner."""

from captioning_stage_against_generate import generate_share


def test_most_of_the_captioning_worker_is_the_captioner(tmp_path):
    assert generate_share(tmp_path, records=4, side=64) > 0.6
