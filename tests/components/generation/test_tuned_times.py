"""Times of few steps: the search on functions whose minimum is known, and on a flow where it is."""

import pytest
import torch

from components.conditioning.text import TextTokens
from components.diffusion.denoiser import conditioned
from components.diffusion.samplers import consistency
from components.generation.tuned_times import energy_distance, golden_section, tune_times
from tests.gaussian_data import PROCESSES, Gaussian


def test_golden_section_search_finds_a_minimum_as_exactly_as_its_evaluations_allow():
    for minimum in (0.02, 0.4, 0.97):
        tried: list[float] = []

        def value(t: float, minimum: float = minimum, tried: list[float] = tried) -> float:
            tried.append(t)
            return abs(t - minimum)

        assert abs(golden_section(value, 0.0, 1.0, 12) - minimum) < 0.62**11
        assert len(tried) == 12 and min(tried) > 0 and max(tried) < 1


def test_times_are_added_one_at_a_time_each_below_the_last():
    """This score's best first time is .7, whatever follows, and its best second one .6 of the first."""

    def score(times: torch.Tensor) -> float:
        inner = times[1:-1].tolist()
        wanted = [0.7, 0.6 * inner[0], 0.5][: len(inner)]
        return sum((a - b) ** 2 for a, b in zip(inner, wanted, strict=True))

    tuned = tune_times(score, (3, 1, 2), evaluations=16)
    assert set(tuned) == {1, 2, 3}
    assert tuned[1] == (1, 0)
    assert tuned[2] == pytest.approx((1, 0.7, 0), abs=2e-3)
    assert tuned[3] == pytest.approx((1, 0.7, 0.42, 0), abs=2e-3)
    assert tuned[3][:2] == tuned[2][:2]
    assert tune_times(score, ()) == {}


def test_the_energy_distance_by_hand_and_of_one_distribution():
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [5.0]])
    assert energy_distance(a, b) == pytest.approx(2 * (3 + 5 + 2 + 4) / 4 - 1 - 2)
    rows = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    assert abs(energy_distance(rows[:1000], rows[1000:])) < 0.01
    assert energy_distance(rows[:1000], 1.5 * rows[1000:]) > 0.05


def test_a_second_step_is_placed_where_an_undistilled_model_s_images_spread_most():
    """f(x_t, t) = E[x_0 | x_t] of N(mu, s²) spreads by (1-t) s² t / ((1-t)² s² + t²): most at s / (1+s)."""
    s = 0.5
    generator = torch.Generator().manual_seed(0)
    truth, start, fresh = (torch.randn(512, 1, 2, 2, generator=generator) for _ in range(3))
    denoiser = Gaussian(0.3, s).denoiser(PROCESSES["rectified_flow"], "velocity")
    text = TextTokens(torch.ones(512, 1, dtype=torch.long), torch.ones(512, 1, dtype=torch.bool))

    def score(times: torch.Tensor) -> float:
        images = consistency(conditioned(denoiser, text), start, times, lambda _: fresh)
        return energy_distance(images.flatten(1), (0.3 + s * truth).flatten(1))

    assert tune_times(score, (2,))[2][1] == pytest.approx(s / (1 + s), abs=0.05)
