"""Samplers against flows that have a closed form: Gaussian data, and a single point of data.

For data N(mu, s²) the flow's velocity is linear in x, and it carries noise z to exactly mu + s z.
"""

import pytest
import torch

from components.conditioning.text import TextTokens
from components.diffusion.dit import DiT, DiTConfig
from components.diffusion.process import over, rectified_flow
from components.diffusion.samplers import consistency, euler, get_noise, guided_velocity, heun_step

MU, S = 0.7, 0.4


def gaussian_velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """E[eps - x_0 | x_t = x]."""
    t = over(t, x)
    variance = (1 - t) ** 2 * S**2 + t**2
    return -MU + (t - (1 - t) * S**2) / variance * (x - (1 - t) * MU)


def gaussian_end(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Where the path through (x, t) ends at t = 0: the exact consistency function."""
    t = over(t, x)
    return MU + S * (x - (1 - t) * MU) / torch.sqrt((1 - t) ** 2 * S**2 + t**2)


def noise(count: int = 64) -> torch.Tensor:
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def heun(x: torch.Tensor, steps: int) -> torch.Tensor:
    for n in range(steps, 0, -1):
        t, s = (torch.full((len(x),), k / steps, dtype=x.dtype) for k in (n, n - 1))
        x = heun_step(gaussian_velocity, x, t, s)
    return x


def test_the_closed_form_is_the_flow():
    """The consistency function is constant along the flow: d f(x_t, t) / dt = 0."""
    x = noise()[:, :1, :1, :1].requires_grad_()
    t = torch.linspace(0.05, 0.95, 64, dtype=torch.float64, requires_grad=True)
    in_x, in_t = torch.autograd.grad(gaussian_end(x, t).sum(), (x, t))
    change = in_x.flatten() * gaussian_velocity(x, t).flatten() + in_t
    torch.testing.assert_close(change, torch.zeros_like(change), atol=1e-12, rtol=0)


def test_euler_s_error_halves_with_twice_the_steps():
    z = noise()
    errors = [(euler(gaussian_velocity, z, n) - (MU + S * z)).abs().max().item() for n in (32, 64, 128)]
    assert errors[-1] < 0.02
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([2, 2], rel=0.15)


def test_heun_s_error_quarters_with_twice_the_steps():
    z = noise()
    errors = [(heun(z, n) - (MU + S * z)).abs().max().item() for n in (32, 64, 128)]
    assert errors[-1] < 2e-4
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([4, 4], rel=0.2)


def test_euler_draws_the_data_s_mean_and_deviation():
    drawn = euler(gaussian_velocity, noise(5000), 200)
    assert drawn.mean().item() == pytest.approx(MU, abs=0.01)
    assert drawn.std().item() == pytest.approx(S, abs=0.01)


def test_straight_paths_take_one_step():
    """All data in one point: the paths are straight, and any number of steps ends in the point."""
    z, point = noise(), torch.full((64, 1, 2, 2), 0.3, dtype=torch.float64)

    def velocity(x, t):
        return (x - point) / over(t, x)

    for steps in (1, 3):
        torch.testing.assert_close(euler(velocity, z, steps), point, atol=1e-6, rtol=0)
    t, s = torch.full((64,), 0.9, dtype=torch.float64), torch.full((64,), 0.2, dtype=torch.float64)
    x_t = rectified_flow().sample(point, z, t).x_t
    torch.testing.assert_close(heun_step(velocity, x_t, t, s), rectified_flow().sample(point, z, s).x_t)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_consistency_sampling_draws_the_data_s_mean_and_deviation(steps):
    drawn = consistency(gaussian_end, noise(5000), steps, seed=0)
    assert drawn.mean().item() == pytest.approx(MU, abs=0.01)
    assert drawn.std().item() == pytest.approx(S, abs=0.01)


def test_consistency_sampling_adds_noise_as_the_path_does():
    """x_t = (1 - t) x_0 + t z at t = 2/3 and 1/3, z a function of (seed, step, image)."""
    z = get_noise((3, 1, 2, 2), 5, "noise", 10)
    x_0 = gaussian_end(z, torch.ones(3))
    for step, t in ((1, 2 / 3), (2, 1 / 3)):
        fresh = get_noise((3, 1, 2, 2), 5, f"consistency-{step}", 10)
        x_0 = gaussian_end((1 - t) * x_0 + t * fresh, torch.full((3,), t))
    torch.testing.assert_close(consistency(gaussian_end, z, 3, seed=5, first=10), x_0)
    ends = consistency(lambda x, t: torch.zeros_like(x), z, 3, seed=5)
    assert torch.equal(ends, torch.zeros_like(z))


def test_an_image_s_noise_does_not_depend_on_its_batch():
    whole = get_noise((6, 3, 4, 4), 7, "noise")
    assert torch.equal(get_noise((2, 3, 4, 4), 7, "noise", first=3), whole[3:5])
    assert not torch.equal(get_noise((6, 3, 4, 4), 8, "noise"), whole)
    assert not torch.equal(get_noise((6, 3, 4, 4), 7, "other"), whole)
    assert len({row.sum().item() for row in whole}) == 6


def test_guidance_is_linear_in_its_scale_and_one_is_the_conditional_model():
    torch.manual_seed(0)
    model = DiT(DiTConfig(image_size=8, patch=4, width=32, depth=1, heads=2, vocabulary=20))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.tensor([[1, 4, 5, 6, 0, 0, 0, 0], [1, 7, 0, 0, 0, 0, 0, 0]])
    text = TextTokens(ids, ids > 0)
    null = TextTokens(torch.tensor([[1, 0]]), torch.tensor([[True, False]]))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.9, 0.3])
    with torch.no_grad():
        at = {w: guided_velocity(model, text, null, w)(x, t) for w in (0.0, 1.0, 3.0, -1.5)}
        conditional = model.velocity(x, t, text)
        unconditional = model.velocity(x, t, null.repeat(2, 2))
    assert torch.equal(at[1.0], conditional)
    torch.testing.assert_close(at[0.0], unconditional, atol=1e-5, rtol=1e-4)
    for w in (3.0, -1.5):
        torch.testing.assert_close(at[w], at[0.0] + w * (at[1.0] - at[0.0]), atol=1e-4, rtol=1e-4)
    assert (at[1.0] - at[0.0]).abs().max() > 0.01
