"""Intervals and times over a run, at the boundaries of their stages."""

import math
from dataclasses import replace

import pytest
import torch

from components.distillation.config import ConsistencyConfig
from components.distillation.curriculum import draw_times, ect_previous, intervals_at, target_halflife
from tests.loss_context import context, named

ICT = ConsistencyConfig(curriculum="doubling", intervals=10)  # 10 to 1280
TOTAL = 8_000  # images: eight stages of a thousand


def test_intervals_double_in_stages_of_equal_length():
    for stage in range(8):
        for images_seen in (1000 * stage, 1000 * stage + 999):
            assert intervals_at(ICT, images_seen, TOTAL) == 10 * 2**stage
    assert intervals_at(ICT, TOTAL, TOTAL) == 1280


@pytest.mark.parametrize(("first", "last"), [(12, 1280), (10, 10), (2, 3)])
def test_they_never_exceed_the_last(first, last):
    config = ConsistencyConfig(curriculum="doubling", intervals=first, most_intervals=last)
    grown = [intervals_at(config, images, 100) for images in range(101)]
    assert grown[0] == first and grown == sorted(grown) and max(grown) <= last


def test_the_target_forgets_more_slowly_as_intervals_become_more():
    """mu(k) = exp(s0 log(mu0) / N(k)): half-lives are as N(k) / s0."""
    assert target_halflife(ICT, TOTAL) is None
    halflife = target_halflife(ICT.model_copy(update={"target": "ema"}), TOTAL)
    assert [halflife(images) for images in (0, 999, 1000, 7000)] == [1000, 1000, 2000, 128_000]
    fixed = target_halflife(ConsistencyConfig(target="ema", target_halflife_images=70), TOTAL)
    assert fixed(0) == fixed(TOTAL) == 70


def drawn(
    config: ConsistencyConfig, images_seen: int, count: int = 2000
) -> tuple[torch.Tensor, torch.Tensor]:
    samples = named({"x_0": torch.zeros(count)})
    step = replace(context(samples), images_seen=images_seen, total_images=TOTAL)
    times = draw_times(config, step)
    return times.t, times.s


def test_the_times_are_those_of_the_stage():
    config = ICT.model_copy(update={"shift": 1.0})
    for images_seen, intervals in ((0, 10), (1000, 20), (2999, 40)):
        t, s = drawn(config, images_seen)
        torch.testing.assert_close(t - s, torch.full_like(t, 1 / intervals), rtol=1e-4, atol=1e-6)
        assert t.min() == pytest.approx(1 / intervals) and t.max() == 1


def test_ect_s_mapping_by_hand():
    """At t = 1/2 sigma is 1, and n is 1 + 8 / (1 + e)."""
    t, n = torch.tensor([0.5], dtype=torch.float64), 1 + 8 / (1 + math.e)
    assert ect_previous(t, 1).item() == 0  # 1 - n / 2 is below zero
    for stage in (2, 3, 8):
        sigma = 1 - n / 2**stage
        assert ect_previous(t, stage).item() == pytest.approx(sigma / (1 + sigma), rel=1e-12)
    far = torch.tensor([1 - 1e-6], dtype=torch.float64)  # sigma is a million, and half of it is left
    assert (far / (1 - far) / (ect_previous(far, 1) / (1 - ect_previous(far, 1)))).item() == pytest.approx(2)


def test_ect_s_times_come_nearer_at_every_stage_and_never_meet():
    config = ConsistencyConfig(curriculum="ratio", halvings=4)
    gaps = []
    for images_seen in (0, 1999, 2000, 4000, 6000):
        t, s = drawn(config, images_seen)
        assert (s >= 0).all() and (s < t).all() and (t <= 1).all() and t.isfinite().all()
        gaps.append((t - s).mean().item())
    assert gaps[0] == pytest.approx(gaps[1]) and gaps[1] > gaps[2] > gaps[3] > gaps[4]
