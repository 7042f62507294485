"""Min-p sampling: no token below the threshold, the right frequencies, and noise of the record alone."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from components.captioning.config import GREEDY, SamplingConfig
from components.captioning.sampling import MinPGumbel, gumbel, row_seed

ROWS, VOCABULARY = 4000, 12


def draw(scores: torch.Tensor, min_p: float, seeds: list[int], position: int = 0) -> torch.Tensor:
    """The tokens that greedy decoding takes from what the sampler makes of the scores."""
    sampler = MinPGumbel(min_p, seeds)
    for _ in range(position):
        sampler(torch.zeros(len(seeds), 1), scores)
    return sampler(torch.zeros(len(seeds), 1), scores).argmax(-1)


def seeds_of(kind: str = "long", seed: int = 0, rows: int = ROWS) -> list[int]:
    return [row_seed(seed, f"key {row}", kind) for row in range(rows)]


@pytest.fixture(scope="module")
def scores() -> torch.Tensor:
    return torch.randn(ROWS, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize("min_p", [0.05, 0.3, 0.9])
def test_no_token_below_the_threshold_is_drawn_and_others_are(scores, min_p):
    chosen = draw(scores, min_p, seeds_of())
    probabilities = scores.softmax(-1)
    share_of_best = probabilities.gather(1, chosen[:, None])[:, 0] / probabilities.amax(-1)
    assert (share_of_best >= min_p - 1e-6).all()
    assert (share_of_best < 1).any(), "a sampler that takes the best only is greedy"


def test_the_frequencies_are_the_probabilities_of_what_is_left():
    kept, dropped = [0.4, 0.3, 0.2], [0.1]
    scores = torch.tensor([kept + dropped]).log().expand(40_000, -1)
    counts = np.bincount(draw(scores, 0.5, seeds_of(rows=40_000)).numpy(), minlength=4) / 40_000
    expected = np.array([*(p / sum(kept) for p in kept), 0])
    deviation = np.sqrt(expected * (1 - expected) / 40_000)
    assert (np.abs(counts - expected) <= 4 * deviation).all(), counts


def test_min_p_of_one_is_greedy(scores):
    assert (draw(scores, 1.0, seeds_of()) == scores.argmax(-1)).all()
    assert GREEDY.greedy and not SamplingConfig().greedy


def test_a_row_is_drawn_alike_in_every_batch(scores):
    seeds = seeds_of()
    whole = draw(scores, 0.1, seeds)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    assert (draw(scores[order], 0.1, [seeds[row] for row in order.tolist()]) == whole[order]).all()
    alone = [draw(scores[row : row + 1], 0.1, seeds[row : row + 1]).item() for row in range(50)]
    assert alone == whole[:50].tolist()


def test_key_kind_seed_and_position_each_change_the_draw():
    even = torch.zeros(ROWS, VOCABULARY)
    drawn = [
        draw(even, 0.5, seeds_of()),
        draw(even, 0.5, [row_seed(0, f"other {row}", "long") for row in range(ROWS)]),
        draw(even, 0.5, seeds_of(kind="short")),
        draw(even, 0.5, seeds_of(seed=1)),
        draw(even, 0.5, seeds_of(), position=1),
    ]
    for i in range(len(drawn)):
        for j in range(i):
            same = (drawn[i] == drawn[j]).double().mean().item()
            assert abs(same - 1 / VOCABULARY) < 4 * math.sqrt(1 / VOCABULARY / ROWS), "independent draws"


def test_the_noise_is_standard_gumbel():
    """By its quantiles: P(G < x) = exp(-exp(-x))."""
    count = 200_000
    seeds = torch.tensor(seeds_of(rows=count // 100)).repeat_interleave(100)
    noise = gumbel(seeds, 3, torch.arange(100).repeat(count // 100)).sort().values
    uniform = torch.exp(-torch.exp(-noise)).numpy()
    distance = np.abs(uniform - (np.arange(count) + 0.5) / count).max()
    assert distance < 1.95 / math.sqrt(count), "Kolmogorov-Smirnov at 0.001"
    assert torch.isfinite(noise).all()


def splitmix64(state: int) -> int:
    """The output of Steele 2014's generator after `state`, in Python's integers."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


@pytest.mark.parametrize(
    ("seed", "position", "token"), [(0, 0, 0), (2**63 - 1, 95, 151_936), (12345, 7, 399)]
)
def test_the_noise_is_the_same_on_every_machine(seed, position, token):
    """The published generator, step by step; its first output for the state 0 is known."""
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    step = 0x9E3779B97F4A7C15
    bits = splitmix64(splitmix64(seed + position * step) + token * step)
    uniform = ((bits >> 12) + 0.5) / 2**52
    (noise,) = gumbel(torch.tensor([seed]), position, torch.tensor([token])).tolist()
    assert noise == pytest.approx(-math.log(-math.log(uniform)), rel=1e-12)


@pytest.mark.parametrize("setting", [{"min_p": 0}, {"min_p": 1.5}, {"min_p": math.nan}, {"seed": -1}])
def test_a_setting_out_of_range_is_refused_by_name(setting):
    with pytest.raises(ValidationError, match=next(iter(setting))):
        SamplingConfig(**setting)
