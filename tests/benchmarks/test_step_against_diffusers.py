"""A training step of our DiT takes no more than one of diffusers' at equal tokens, or little more."""

from step_against_diffusers import measure


def test_a_step_takes_no_longer_than_diffusers():
    costs = measure(width=128, depth=2)
    assert costs.ours < 1.15 * costs.sd3
    assert costs.ours < 1.6 * costs.dit
    assert costs.floor < costs.ours
