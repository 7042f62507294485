"""A record is examined in a small multiple of what its decode takes."""

from examining_against_pillow import measure


def test_rules_and_hashes_cost_a_few_decodes_at_most():
    for costs in measure(records=12).values():
        assert costs["examine"] < 8 * costs["Pillow"]
