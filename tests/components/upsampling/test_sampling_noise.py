"""Sampling by Gumbel noise: the softmax at a temperature, cut by min-p, and a function of the seed."""

import pytest
import torch

from components.upsampling.sampling_noise import RowNoise, gumbel, sample

PROBABILITIES = torch.tensor([0.55, 0.3, 0.1, 0.05])


def sampled(scores: torch.Tensor, noises: list[RowNoise], **settings: float) -> list[int]:
    return sample(scores, [noise.next(scores.shape[-1]) for noise in noises], **settings)


def shares(scores: torch.Tensor, **settings: float) -> torch.Tensor:
    noise = RowNoise(3)
    samples = torch.tensor([sampled(scores[None], [noise], **settings)[0] for _ in range(5_000)])
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
    noise = RowNoise(0)
    scores = torch.tensor([[-torch.inf, -50.0, -torch.inf]])
    assert {sampled(scores, [noise], min_p=0.05)[0] for _ in range(100)} == {1}


def test_a_rows_samples_are_a_function_of_its_seed_alone():
    scores = torch.zeros(3, 50)
    together = [RowNoise(seed) for seed in (1, 2, 3)]
    rows = zip(*(sampled(scores, together) for _ in range(500)), strict=True)
    alone = [tuple(sampled(scores[:1], [noise])[0] for _ in range(500)) for noise in map(RowNoise, (1, 2, 3))]
    assert list(rows) == alone and len(set(alone)) == 3


def test_the_noise_is_that_of_a_call_for_each_token():
    """Whatever is drawn ahead: a seed's captions stay what they were."""
    noise, stream = RowNoise(7), torch.Generator().manual_seed(7)
    for _ in range(50):
        uniform = torch.rand(1000, generator=stream).clamp(1e-20, 1 - 1e-7)
        assert torch.equal(gumbel(noise.next(1000)), -torch.log(-torch.log(uniform)))


def test_noise_that_was_given_back_comes_again():
    noise, stream = RowNoise(7), RowNoise(7)
    expected = [stream.next(1000) for _ in range(40)]
    for at in range(0, 40, 4):
        drawn = [noise.next(1000) for _ in range(7)]  # also from beyond what is drawn at once
        noise.give_back(drawn[4:])
        assert all(torch.equal(*pair) for pair in zip(drawn[:4], expected[at : at + 4], strict=True))


def test_noise_for_the_tokens_that_are_left_alone_samples_as_noise_for_all():
    scores = 4 * torch.randn(64, 1003, generator=torch.Generator().manual_seed(1))
    for seed in range(8):
        uniform = torch.stack([RowNoise(64 * seed + row).next(1003) for row in range(64)])
        left = scores >= scores.amax(-1, keepdim=True) + torch.tensor(0.05).log()
        expected = torch.where(left, scores, -torch.inf) + gumbel(uniform)
        found = sample(scores, list(uniform), min_p=0.05)
        assert found == expected.argmax(-1).tolist()
