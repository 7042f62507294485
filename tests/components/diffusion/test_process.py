"""The paths and their conversions, in float64 against their own equations."""

import pytest
import torch

from components.diffusion.process import (
    T_MIN,
    Process,
    ddpm,
    draw_times,
    rectified_flow,
    shift_times,
    velocity_of_x_hat,
)

PATHS = {"rectified flow": rectified_flow(), "ddpm": ddpm()}
TIMES = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)


@pytest.fixture(params=PATHS)
def process(request) -> Process:
    return PATHS[request.param]


def draws(seed: int = 0, times: torch.Tensor = TIMES) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(times), 2, 3, 3)
    x_0, eps = (torch.randn(shape, generator=generator, dtype=times.dtype) for _ in range(2))
    return x_0, eps


def test_every_prediction_says_the_same_as_the_velocity(process):
    x_0, eps = draws()
    point = process.sample(x_0, eps, TIMES)
    exact = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(process.x_0_from_v(point.x_t, point.v, TIMES), x_0, **exact)
    torch.testing.assert_close(process.eps_from_v(point.x_t, point.v, TIMES), eps, **exact)
    torch.testing.assert_close(process.v_from_x_0(point.x_t, x_0, TIMES), point.v, **exact)
    torch.testing.assert_close(process.v_from_eps(point.x_t, eps, TIMES), point.v, **exact)


def test_the_velocity_is_the_slope_of_the_path(process):
    x_0, eps = (draw[:, :1, :1, :1] for draw in draws())
    t = TIMES.clone().requires_grad_()
    point = process.sample(x_0, eps, t)
    (slope,) = torch.autograd.grad(point.x_t.sum(), t)  # each x_t depends on its own t alone
    v = point.v.detach()
    torch.testing.assert_close(v.flatten(), slope, rtol=1e-10, atol=1e-10)
    h = 1e-5
    ahead, behind = (process.sample(x_0, eps, TIMES + step).x_t for step in (h, -h))
    torch.testing.assert_close(v, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)


def test_rectified_flow_is_the_straight_line_from_data_to_noise():
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    x_0, eps = draws(times=ends)
    point = rectified_flow().sample(x_0, eps, ends)
    assert torch.equal(point.x_t, torch.stack([x_0[0], eps[1]]))
    assert torch.equal(point.v, eps - x_0)


def test_ddpm_keeps_the_variance_and_follows_the_discrete_schedule():
    process = ddpm()
    torch.testing.assert_close(process.alpha(TIMES) ** 2 + process.sigma(TIMES) ** 2, torch.ones_like(TIMES))
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # Ho 2020, section 4
    discrete = torch.log(1 - betas).cumsum(0)  # log abar after 1, 2, ... steps
    continuous = 2 * torch.log(process.alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000))
    torch.testing.assert_close(continuous, discrete, rtol=0.01, atol=1e-3)


def test_ddpm_near_the_data_is_as_exact_in_single_precision(process):
    t = torch.tensor([1e-5, 1e-4, 1e-3], dtype=torch.float64)
    torch.testing.assert_close(process.sigma(t.float()).double(), process.sigma(t), rtol=1e-5, atol=0)
    torch.testing.assert_close(
        process.sigma_slope(t.float()).double(), process.sigma_slope(t), rtol=1e-5, atol=0
    )


def test_the_velocity_of_a_predicted_x_0_is_the_path_s_and_stays_finite_at_the_data():
    x_0, eps = draws()
    point = rectified_flow().sample(x_0, eps, TIMES)
    v_hat = velocity_of_x_hat(point.x_t, x_0, TIMES)
    far = TIMES >= T_MIN
    torch.testing.assert_close(v_hat[far], point.v[far])
    at_data = velocity_of_x_hat(x_0, x_0 + 1, torch.zeros_like(TIMES))
    torch.testing.assert_close(at_data, torch.full_like(x_0, -1 / T_MIN))


def test_drawn_times_are_logit_normal_and_a_function_of_the_generator():
    t = draw_times(40_000, 0.3, 1.2, torch.Generator().manual_seed(0))
    assert t.min() > 0 and t.max() < 1
    logits = torch.logit(t.double())
    assert logits.mean().item() == pytest.approx(0.3, abs=0.03)
    assert logits.std().item() == pytest.approx(1.2, abs=0.03)
    assert torch.equal(t, draw_times(40_000, 0.3, 1.2, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_a_shift_of_the_times_divides_the_signal_to_noise_ratio(shift):
    shifted = shift_times(TIMES, shift)
    ratio = ((1 - TIMES) / TIMES) / ((1 - shifted) / shifted)
    torch.testing.assert_close(ratio, torch.full_like(TIMES, shift))
    ends = torch.tensor([0.0, 1.0])
    assert torch.equal(shift_times(ends, shift), ends)
