"""Samplers against flows that have a closed form: Gaussian data, and a single point of data."""

from functools import partial
from itertools import pairwise

import pytest
import torch

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig
from components.diffusion.denoiser import ConditionedDenoiser, Denoiser, conditioned, make_denoiser
from components.diffusion.dit import DiT, DiTConfig
from components.diffusion.guidance import guided
from components.diffusion.process import Process, over, rectified_flow
from components.diffusion.samplers import consistency, euler, get_noise, heun, heun_step
from components.diffusion.times import even_times, shifted_times
from tests.gaussian_data import PROCESSES, QUANTITIES, Gaussian

MU, S = 0.7, 0.4
GAUSSIAN = Gaussian(MU, S)
NO_TEXT = TextTokens(torch.ones(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool))
FLOW = rectified_flow()


def gaussian(process: Process = FLOW, prediction: str = "velocity") -> ConditionedDenoiser:
    return conditioned(GAUSSIAN.denoiser(process, prediction), NO_TEXT)


def exact_student(process: Process) -> ConditionedDenoiser:
    """A denoiser whose consistency function is the exact end of the path: as x_0, for t away from 0."""
    network = partial(GAUSSIAN.end, process)
    return conditioned(Denoiser(lambda x, t, _: network(x, t), process, "x_0"), NO_TEXT)


def noise(count: int = 64) -> torch.Tensor:
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def largest_error(process: Process, images: torch.Tensor, z: torch.Tensor) -> float:
    return (images - GAUSSIAN.end(process, z, torch.ones(len(z)))).abs().max().item()


@pytest.mark.parametrize("name", PROCESSES)
def test_the_closed_form_is_the_flow(name):
    """The consistency function is constant along the flow: d f(x_t, t) / dt = 0."""
    process, x = PROCESSES[name], noise()[:, :1, :1, :1].requires_grad_()
    t = torch.linspace(0.05, 0.95, 64, dtype=torch.float64, requires_grad=True)
    in_x, in_t = torch.autograd.grad(GAUSSIAN.end(process, x, t).sum(), (x, t))
    velocity = GAUSSIAN.estimate(process, "velocity", x, t)
    change = in_x.flatten() * velocity.flatten() + in_t
    torch.testing.assert_close(change, torch.zeros_like(change), atol=1e-12, rtol=0)


def test_euler_s_error_halves_with_twice_the_steps():
    z = noise()
    errors = [largest_error(FLOW, euler(gaussian(), z, even_times(n)), z) for n in (32, 64, 128)]
    assert errors[-1] < 0.02
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([2, 2], rel=0.15)


def test_heun_s_error_quarters_with_twice_the_steps():
    z = noise()
    errors = [largest_error(FLOW, heun(gaussian(), z, even_times(n)), z) for n in (32, 64, 128)]
    assert errors[-1] < 2.5e-4
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([4, 4], rel=0.2)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("prediction", QUANTITIES)
def test_the_best_denoiser_s_samples_have_the_data_s_mean_and_deviation(name, prediction):
    """Whichever the process and whatever the network predicts; each image ends where its path ends."""
    process, z, times = PROCESSES[name], noise(5000).reshape(20, 1, 25, 40), even_times(400)
    times = times[(times >= process.t_min) | (times == 0)]  # below, x_0's velocity is less than the path's
    images = euler(gaussian(process, prediction), z, times)
    assert images.mean().item() == pytest.approx(MU, abs=0.01)
    assert images.std().item() == pytest.approx(S, abs=0.01)
    assert largest_error(process, images, z) < 0.03


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("prediction", QUANTITIES)
def test_heun_follows_the_path_of_any_denoiser_down_to_where_it_is_exact(name, prediction):
    process, z = PROCESSES[name], noise()
    times = process.t_min + (1 - process.t_min) * even_times(200)
    x = heun(gaussian(process, prediction), z, times)
    end = GAUSSIAN.end(process, x, torch.full((64,), process.t_min))
    expected = GAUSSIAN.end(process, z, torch.ones(64))
    assert (end - expected).abs().max() < (0.01 if prediction == "eps" else 1e-3)  # eps is clamped at t = 1


def test_a_noised_image_is_a_start_like_any_other():
    """From t = .6 the path through (x_t, t) ends where it ends from there, on whichever grid."""
    start = FLOW.sample(noise() * S + MU, noise().flip(0), torch.full((64,), 0.6)).x_t
    end = GAUSSIAN.end(FLOW, start, torch.full((64,), 0.6))
    for times in (even_times(64, start=0.6), shifted_times(64, 2.0, start=3 / 7)):  # 2 (3/7) / (1 + 3/7) = .6
        assert times[0].item() == pytest.approx(0.6)
        assert (heun(gaussian(), start, times) - end).abs().max() < 1e-3
    back = heun(gaussian(), heun(gaussian(), start, even_times(64, 0.6)), even_times(64, 0.6).flip(0))
    assert (back - start).abs().max() < 1e-3  # and a rising grid leads back


def test_straight_paths_take_one_step():
    """All data in one point: the paths are straight, and any number of steps ends in the point."""
    z, point = noise(), torch.full((64, 1, 2, 2), 0.3, dtype=torch.float64)
    straight = conditioned(Denoiser(lambda x, t, _: (x - point) / over(t, x), FLOW, "velocity"), NO_TEXT)
    for steps in (1, 3):
        torch.testing.assert_close(euler(straight, z, even_times(steps)), point, atol=1e-6, rtol=0)
    t, s = torch.full((64,), 0.9, dtype=torch.float64), torch.full((64,), 0.2, dtype=torch.float64)
    x_t = FLOW.sample(point, z, t).x_t
    torch.testing.assert_close(heun_step(straight, x_t, t, s), FLOW.sample(point, z, s).x_t)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_consistency_samples_have_the_data_s_mean_and_deviation(name, steps):
    process, z = PROCESSES[name], noise(5000)
    fresh = partial(get_noise, z.shape, 0)
    images = consistency(exact_student(process), z, even_times(steps), lambda step: fresh(f"step {step}"))
    assert images.mean().item() == pytest.approx(MU, abs=0.01)
    assert images.std().item() == pytest.approx(S, abs=0.01)


@pytest.mark.parametrize("name", PROCESSES)
def test_consistency_sampling_adds_noise_as_the_path_does(name):
    """x_t = alpha x_0 + sigma z at t = 2/3 and 1/3, z the noise of the step that leads there."""
    process, z = PROCESSES[name], get_noise((3, 1, 2, 2), 5, "noise", 10)
    student, steps = exact_student(process), []

    def fresh_noise(step: int) -> torch.Tensor:
        steps.append(step)
        return get_noise((3, 1, 2, 2), 5, f"consistency-{step}", 10)

    x_0 = GAUSSIAN.end(process, z, torch.ones(3))
    for step, time in ((1, 2 / 3), (2, 1 / 3)):
        fresh, t = get_noise((3, 1, 2, 2), 5, f"consistency-{step}", 10), torch.full((3,), time)
        x_t = over(process.alpha(t), z) * x_0 + over(process.sigma(t), z) * fresh
        x_0 = GAUSSIAN.end(process, x_t, t)
    torch.testing.assert_close(consistency(student, z, even_times(3), fresh_noise), x_0)
    assert steps == [1, 2]


def test_an_image_s_noise_does_not_depend_on_its_batch():
    whole = get_noise((6, 3, 4, 4), 7, "noise")
    assert torch.equal(get_noise((2, 3, 4, 4), 7, "noise", first=3), whole[3:5])
    assert not torch.equal(get_noise((6, 3, 4, 4), 8, "noise"), whole)
    assert not torch.equal(get_noise((6, 3, 4, 4), 7, "other"), whole)
    assert len({row.sum().item() for row in whole}) == 6


@torch.no_grad()
def test_guided_euler_of_a_flow_is_as_it_was_to_the_bit():
    """The loop as it was written when samplers knew rectified flow and even steps only."""
    torch.manual_seed(0)
    model = DiT(DiTConfig(image_size=8, patch=4, width=32, depth=1, heads=2, vocabulary=20))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.tensor([[1, 4, 5, 6], [1, 7, 0, 0]])
    text = TextTokens(ids, ids > 0)
    null = TextTokens(torch.tensor([[1, 0]]), torch.tensor([[True, False]]))
    both, z = text.joined(null.repeat(2, 4)), torch.randn(2, 3, 8, 8)
    x = z
    for t, s in pairwise(torch.linspace(1, 0, 8)):
        twice, times = torch.cat([x, x]), t.expand(4)
        v = (twice - model(twice, times, both)) / over(times.clamp(min=0.05), twice)
        conditional, unconditional = v.chunk(2)
        x = x + (s - t) * (unconditional + 2.5 * (conditional - unconditional))
    denoiser = guided(make_denoiser(model, DiffusionConfig()), text, null, 2.5)
    assert torch.equal(euler(denoiser, z, even_times(7)), x)
