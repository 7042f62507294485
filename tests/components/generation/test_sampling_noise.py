"""Sampling by Gumbel noise: the softmax at a temperature, cut by min-p, and a function of the seed."""

import pytest
import torch

from components.generation.sampling_noise import GumbelNoise

PROBABILITIES = torch.tensor([0.55, 0.3, 0.1, 0.05])


def shares(scores: torch.Tensor, **settings: float) -> torch.Tensor:
    noise = GumbelNoise(3, **settings)
    samples = torch.tensor([noise.sample(scores) for _ in range(5_000)])
    return torch.bincount(samples, minlength=len(scores)) / len(samples)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_samples_have_the_softmax_at_the_temperature(temperature):
    found = shares(temperature * PROBABILITIES.log(), temperature=temperature)
    assert torch.allclose(found, PROBABILITIES, atol=4 * 0.5 / 5_000**0.5)


def test_min_p_leaves_out_what_is_far_below_the_likeliest():
    found = shares(PROBABILITIES.log(), min_p=0.15)  # of .55: below .0825
    expected = torch.tensor([0.55, 0.3, 0.1, 0.0]) / 0.95
    assert found[3] == 0 and torch.allclose(found, expected, atol=4 * 0.5 / 5_000**0.5)


def test_what_is_forbidden_is_never_chosen():
    noise = GumbelNoise(0, 1.0, 0.05)
    scores = torch.tensor([-torch.inf, -50.0, -torch.inf])
    assert {noise.sample(scores) for _ in range(100)} == {1}


def test_the_samples_are_a_function_of_the_seed():
    first, again, other = (
        [noise.sample(torch.zeros(50)) for _ in range(20)]
        for noise in (GumbelNoise(1), GumbelNoise(1), GumbelNoise(2))
    )
    assert first == again != other
