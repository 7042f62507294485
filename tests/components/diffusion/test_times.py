"""The grids of the samplers, and the times of training."""

import pytest
import torch

from components.diffusion.times import even_times, logit_normal, shift_times, shifted_times

TIMES = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)


def test_even_times_fall_from_the_start_to_the_data_in_equal_steps():
    for start in (1.0, 0.6):
        times = even_times(4, start)
        torch.testing.assert_close(times, start * torch.tensor([1, 0.75, 0.5, 0.25, 0]))
        assert times[0] == torch.tensor(start) and times[-1] == 0
    assert even_times(1).tolist() == [1, 0]


def test_shifted_times_are_finer_near_the_noise():
    times = shifted_times(3, 2.0)
    assert times.tolist() == pytest.approx([1, 4 / 5, 2 / 4, 0])  # 2 u / (1 + u)
    assert torch.equal(shifted_times(5, 1.0, 0.7), even_times(5, 0.7))


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_a_shift_of_the_times_divides_the_signal_to_noise_ratio(shift):
    shifted = shift_times(TIMES, shift)
    ratio = ((1 - TIMES) / TIMES) / ((1 - shifted) / shifted)
    torch.testing.assert_close(ratio, torch.full_like(TIMES, shift))
    ends = torch.tensor([0.0, 1.0])
    assert torch.equal(shift_times(ends, shift), ends)


def test_the_logits_of_training_s_times_are_normal():
    t = logit_normal(torch.randn(40_000, generator=torch.Generator().manual_seed(0)), 0.3, 1.2)
    assert t.min() > 0 and t.max() < 1
    logits = torch.logit(t.double())
    assert logits.mean().item() == pytest.approx(0.3, abs=0.03)
    assert logits.std().item() == pytest.approx(1.2, abs=0.03)
