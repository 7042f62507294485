"""The paths and their conversions, in float64 against their own equations."""

import pytest
import torch

from components.diffusion.process import Process, ddpm, ddpm_cosine, over, rectified_flow
from tests.gaussian_data import PROCESSES, QUANTITIES

TIMES = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(params=PROCESSES)
def process(request) -> Process:
    return PROCESSES[request.param]


def data_and_noise(seed: int = 0, times: torch.Tensor = TIMES) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(times), 2, 3, 3)
    x_0, eps = (torch.randn(shape, generator=generator, dtype=times.dtype) for _ in range(2))
    return x_0, eps


@pytest.mark.parametrize("source", QUANTITIES)
@pytest.mark.parametrize("target", QUANTITIES)
def test_each_quantity_gives_the_others_and_comes_back(process, source, target):
    """Wherever neither x_0's nor eps's conversions are clamped."""
    t = TIMES[(process.t_min <= TIMES) & (process.t_max >= TIMES)]
    x_0, eps = data_and_noise(times=t)
    point = process.sample(x_0, eps, t)
    value = process.convert(getattr(point, source), point.x_t, t, source=source, target=target)
    torch.testing.assert_close(value, getattr(point, target), **EXACT)
    back = process.convert(value, point.x_t, t, source=target, target=source)
    torch.testing.assert_close(back, getattr(point, source), **EXACT)


def test_the_velocity_is_the_slope_of_the_path(process):
    x_0, eps = (tensor[:, :1, :1, :1] for tensor in data_and_noise())
    t = TIMES.clone().requires_grad_()
    point = process.sample(x_0, eps, t)
    (slope,) = torch.autograd.grad(point.x_t.sum(), t)  # each x_t depends on its own t alone
    velocity = point.velocity.detach()
    torch.testing.assert_close(velocity.flatten(), slope, rtol=1e-10, atol=1e-10)
    h = 1e-5
    ahead, behind = (process.sample(x_0, eps, TIMES + step).x_t for step in (h, -h))
    torch.testing.assert_close(velocity, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)


def test_rectified_flow_is_the_straight_line_from_data_to_noise():
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    x_0, eps = data_and_noise(times=ends)
    point = rectified_flow().sample(x_0, eps, ends)
    assert torch.equal(point.x_t, torch.stack([x_0[0], eps[1]]))
    assert torch.equal(point.velocity, eps - x_0)


def test_ddpm_keeps_the_variance():
    process = ddpm()
    torch.testing.assert_close(process.alpha(TIMES) ** 2 + process.sigma(TIMES) ** 2, torch.ones_like(TIMES))


def test_no_image_of_eps_is_blown_up_more_than_the_linear_schedule_s():
    """The cosine schedule ends at a signal of 5e-5, by which no estimate of eps can be divided."""
    ends = [process.alpha(torch.tensor([process.t_max])).item() for process in (ddpm(), ddpm_cosine())]
    assert ends[1] == pytest.approx(ends[0], rel=0.05)
    assert ddpm_cosine().alpha(torch.ones(1)).item() < 1e-4


def test_the_diffusion_of_ddpm_is_its_own_sde_s():
    """Of dx = -beta / 2 x dt + sqrt(beta) dw the signal falls by beta / 2 (Song 2021, Eq. 11)."""
    process = ddpm()
    torch.testing.assert_close(
        process.alpha_slope(TIMES), -process.diffusion(TIMES) / 2 * process.alpha(TIMES)
    )


@pytest.mark.parametrize("target", QUANTITIES)
def test_the_score_gives_the_others_and_comes_back(process, target):
    t = TIMES[(process.t_min <= TIMES) & (process.t_max >= TIMES)]
    x_0, eps = data_and_noise(times=t)
    point = process.sample(x_0, eps, t)
    score = -eps / over(process.sigma(t), eps)
    value = process.convert(score, point.x_t, t, source="score", target=target)
    torch.testing.assert_close(value, getattr(point, target), **EXACT)
    back = process.convert(value, point.x_t, t, source=target, target="score")
    torch.testing.assert_close(back, score, **EXACT)
    ends = torch.tensor([0.0, 1.0])
    x_0, eps = data_and_noise(times=ends)
    for source, wanted in ((target, "score"), ("score", target)):
        assert process.convert(x_0, eps, ends, source=source, target=wanted).isfinite().all()


def test_the_noise_near_the_data_is_as_exact_in_single_precision(process):
    t = torch.tensor([1e-5, 1e-4, 1e-3], dtype=torch.float64)
    torch.testing.assert_close(process.sigma(t.float()).double(), process.sigma(t), rtol=1e-5, atol=0)
    torch.testing.assert_close(
        process.sigma_slope(t.float()).double(), process.sigma_slope(t), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("source", QUANTITIES)
@pytest.mark.parametrize("target", QUANTITIES)
def test_every_conversion_is_finite_at_both_ends(process, source, target):
    x_0, eps = data_and_noise(times=torch.tensor([0.0, 1.0]))
    t = torch.tensor([0.0, 1.0])
    converted = process.convert(x_0, eps, t, source=source, target=target)
    assert converted.isfinite().all()


def test_at_the_data_the_x_0_of_any_velocity_is_the_image_itself(process):
    x, velocity = data_and_noise(times=torch.zeros(25))
    assert torch.equal(process.x_0_from_velocity(x, velocity, torch.zeros(25)), x)


def test_rectified_flow_s_velocity_of_x_0_is_jit_s_to_the_bit():
    """(x_t - x_0) / max(t, .05), as the network's output was converted when there was one process."""
    t = torch.cat([torch.tensor([0.0, 1e-3, 0.05, 1.0]), torch.rand(996)])
    x_t, x_0 = data_and_noise(times=t)
    x_0.requires_grad_()
    velocity = rectified_flow().velocity_from_x_0(x_t, x_0, t)
    expected = (x_t - x_0) / over(t.clamp(min=0.05), x_t)
    assert torch.equal(velocity, expected)
    gradients = [torch.autograd.grad(value.square().sum(), x_0)[0] for value in (velocity, expected)]
    assert torch.equal(*gradients)
    end = rectified_flow().x_0_from_velocity(x_t, velocity, t)
    assert torch.equal(end, x_t - over(t, x_t) * velocity)


def test_a_preconditioned_network_has_a_target_of_variance_one_that_its_input_does_not_tell(process):
    """EDM's two conditions (Karras 2022, Appendix B.6) for data and noise of variance 1."""
    t = torch.full((200_000,), 0.3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x_0, eps = (torch.randn(len(t), 1, 1, 1, generator=generator, dtype=t.dtype) for _ in range(2))
    x_t = process.sample(x_0, eps, t).x_t
    at_zero = process.x_0_from_preconditioned(x_t, torch.zeros_like(x_t), t)
    scale = process.x_0_from_preconditioned(x_t, torch.ones_like(x_t), t) - at_zero
    target = (x_0 - at_zero) / scale
    assert target.var().item() == pytest.approx(1, abs=0.01)
    assert (target * x_t).mean().item() == pytest.approx(0, abs=0.01)
    torch.testing.assert_close(
        process.convert(target, x_t, t, source="preconditioned", target="x_0"), x_0, **EXACT
    )


def test_a_preconditioned_network_leaves_the_data_alone_and_answers_at_the_noise():
    process = rectified_flow()
    x_t, output = data_and_noise()
    start, end = torch.zeros(len(x_t)).double(), torch.ones(len(x_t)).double()
    assert torch.equal(process.x_0_from_preconditioned(x_t, output, start), x_t)
    assert torch.equal(process.x_0_from_preconditioned(x_t, output, end), output)
