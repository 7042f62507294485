"""A fragment costs little beside its records."""

from filter_at_scale import fragment_milliseconds


def test_a_fragment_costs_milliseconds_beside_its_records(tmp_path):
    assert fragment_milliseconds(tmp_path, records=24) < 2000
