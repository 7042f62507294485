"""A fragment costs little beside its records, and memory does not grow with their number."""

from filter_at_scale import SMALL_SIDE, fragment_milliseconds, growth_mb


def test_a_fragment_costs_milliseconds_and_records_no_memory(tmp_path):
    assert fragment_milliseconds(tmp_path, records=24) < 500
    assert growth_mb(tmp_path, 300, SMALL_SIDE) < 200
