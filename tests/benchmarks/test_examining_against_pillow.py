"""Records are examined in a small multiple of what their decode takes."""

from examining_against_pillow import measure


def test_rules_and_hashes_cost_a_few_decodes_at_most():
    costs = measure(records=12).values()
    assert sum(cost["examine"] for cost in costs) < 8 * sum(cost["Pillow"] for cost in costs)
