"""The table of samplers against data whose scores and flows have a closed form, in float64."""

import pytest
import torch
from pydantic import ValidationError

from components.diffusion import samplers
from components.diffusion.config import SamplerConfig
from components.diffusion.denoiser import ConditionedDenoiser, conditioned
from components.diffusion.process import Process, ddpm, ddpm_cosine, rectified_flow
from components.diffusion.samplers import SAMPLERS, make_sampler
from components.diffusion.times import even_times
from components.errors import InputError
from tests.gaussian_data import QUANTITIES, Gaussian
from tests.mixture_data import Mixture
from tests.one_text import NO_TEXT

PROCESSES = {"rectified_flow": rectified_flow(), "ddpm": ddpm(), "ddpm_cosine": ddpm_cosine()}
GAUSSIAN, MIXTURE = Gaussian(0.7, 0.4), Mixture()
STOCHASTIC = [
    SamplerConfig(name="sde"),
    SamplerConfig(name="ddpm"),
    SamplerConfig(name="ddpm", variance="beta"),
    SamplerConfig(name="ddim", eta=0.5),
    SamplerConfig(name="ddim", eta=1.0),
]
ALL = [*STOCHASTIC, *(SamplerConfig(name=name) for name in ("euler", "heun", "dpm_solver_2m", "ddim"))]


def label(config: SamplerConfig) -> str:
    return f"{config.name}-{config.variance}-{config.eta:g}"


def noise(count: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pixels(seed: int) -> torch.Tensor:
    """8,000 of them in few images, whose times cost little."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 1, 40, 40, generator=generator, dtype=torch.float64)


def fresh(count: int):
    return lambda step: noise(count, seed=100 + step)


def gaussian(process: Process, prediction: str = "x_0") -> ConditionedDenoiser:
    return conditioned(GAUSSIAN.denoiser(process, prediction), NO_TEXT)


def mixture(process: Process, prediction: str = "x_0") -> ConditionedDenoiser:
    return conditioned(MIXTURE.denoiser(process, prediction), NO_TEXT)


def error(sampler, process: Process, steps: int, high: float = 1.0, low: float = 0.0) -> float:
    """The largest distance to the flow's own end, from `high` to `low`."""
    times, z = low + even_times(steps, high - low).double(), noise(16)
    x = sampler(gaussian(process), z, times, fresh(16))
    ends = [GAUSSIAN.end(process, at, t.expand(16)) for at, t in ((z, times[0]), (x, times[-1]))]
    return (ends[1] - ends[0]).abs().max().item()


@pytest.mark.parametrize(
    ("name", "process", "high", "low", "ratio"),
    [
        ("ddim", "rectified_flow", 1, 0, 2),
        ("ddim", "ddpm", 1, 0, 2),
        ("heun", "rectified_flow", 1, 0, 4),
        ("heun", "ddpm", 1, 0, 4),
        ("dpm_solver_2m", "rectified_flow", 0.9, 0.1, 4),  # where the log-SNR is finite
    ],
)
def test_the_error_falls_by_the_sampler_s_order(name, process, high, low, ratio):
    """Of a predicted image, down to the data, which Euler's clamped velocity does not reach."""
    errors = [error(SAMPLERS[name], PROCESSES[process], steps, high, low) for steps in (32, 64)]
    assert errors[0] / errors[1] == pytest.approx(ratio, rel=0.15)


def test_a_multistep_solver_beats_euler_at_the_same_cost_on_every_path():
    for process in PROCESSES.values():
        assert error(samplers.dpm_solver_2m, process, 64) < error(samplers.ddim, process, 64) / 4


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("config", STOCHASTIC, ids=label)
def test_stochastic_samplers_end_in_the_data_s_mean_deviation_and_modes(config, process):
    denoiser, z = mixture(PROCESSES[process]), pixels(seed=1)
    images = make_sampler(config)(denoiser, z, even_times(60).double(), lambda step: pixels(100 + step))
    assert images.mean().item() == pytest.approx(MIXTURE.mean, abs=0.03)
    assert images.std().item() == pytest.approx(MIXTURE.std, abs=0.03)
    upper = images > 0
    assert upper.double().mean().item() == pytest.approx(MIXTURE.weights[1], abs=0.03)
    assert images[upper].std().item() == pytest.approx(MIXTURE.s, abs=0.04)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("config", ALL, ids=label)
def test_every_sampler_is_finite_from_pure_noise_to_the_data(config, process):
    """In single precision, whatever the network predicts, in one step and in several."""
    z = noise(4, dtype=torch.float32)
    for prediction in QUANTITIES:
        for steps in (1, 3):
            denoiser = mixture(PROCESSES[process], prediction)
            images = make_sampler(config)(denoiser, z, even_times(steps), lambda step: z.flip(0))
            assert images.isfinite().all() and images.dtype == torch.float32


@pytest.mark.parametrize("config", STOCHASTIC, ids=label)
def test_noise_is_asked_for_once_a_step_and_not_at_the_data(config):
    asked = []

    def record(step: int) -> torch.Tensor:
        asked.append(step)
        return noise(2, seed=step)

    sampler = make_sampler(config)
    images = sampler(gaussian(PROCESSES["ddpm"]), noise(2), even_times(4).double(), record)
    assert asked == [1, 2, 3]
    # An image has its own noise: alone, it comes out the same.
    alone = sampler(
        gaussian(PROCESSES["ddpm"]), noise(2)[1:], even_times(4).double(), lambda s: noise(2, seed=s)[1:]
    )
    torch.testing.assert_close(alone, images[1:])


def test_ddim_is_euler_on_a_flow_and_ancestral_sampling_with_eta_one():
    times, z = even_times(8).double(), noise(8)
    flow = gaussian(PROCESSES["rectified_flow"], "velocity")
    torch.testing.assert_close(samplers.ddim(flow, z, times, fresh(8)), samplers.euler(flow, z, times))
    for process in PROCESSES.values():
        ancestral = samplers.ddpm(mixture(process), z, times, fresh(8))
        by_eta = samplers.ddim(mixture(process), z, times, fresh(8), eta=1.0)
        torch.testing.assert_close(by_eta, ancestral, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_data_of_variance_one_takes_the_larger_variance_exactly(process):
    """x_0 ~ N(0, 1) is the data that Ho 2020's beta is right for: any step ends in the path's variance."""
    path, s = PROCESSES[process], torch.tensor([0.3], dtype=torch.float64)
    normal = conditioned(Gaussian(0.0, 1.0).denoiser(path, "x_0"), NO_TEXT)
    count, times = 40_000, torch.tensor([0.8, 0.3], dtype=torch.float64)
    deviation = (path.alpha(times[:1]) ** 2 + path.sigma(times[:1]) ** 2).sqrt()
    x = samplers.ddpm(normal, deviation * noise(count), times, lambda _: noise(count, 2), variance="beta")
    expected = (path.alpha(s) ** 2 + path.sigma(s) ** 2).sqrt().item()
    assert x.std().item() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("process", PROCESSES)
def test_the_score_is_the_slope_of_the_log_density(process):
    path = PROCESSES[process]
    x_t, t = noise(32).requires_grad_(), torch.linspace(0.06, 0.94, 32, dtype=torch.float64)
    (slope,) = torch.autograd.grad(MIXTURE.log_density(path, x_t, t).sum(), x_t)
    for prediction in QUANTITIES:
        torch.testing.assert_close(mixture(path, prediction).score(x_t.detach(), t), slope)
    x_0 = path.convert(slope, x_t, t, source="score", target="x_0")
    torch.testing.assert_close(x_0, MIXTURE.x_0(path, x_t, t))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "edm"}, "name: Input should be"),
        ({"eta": 0.5}, "eta is of sampler ddim; euler has none"),
        ({"name": "ddim", "eta": 1.5}, "eta: Input should be less than or equal to 1"),
        ({"name": "ddim", "variance": "beta"}, "variance is of sampler ddpm; ddim has none"),
        ({"guidance_interval": (0.6, 0.4)}, "guidance interval 0.6 0.4 is none; give two rising times"),
        ({"guidance_rescale": -0.1}, "guidance_rescale: Input should be greater"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(settings, message):
    with pytest.raises(ValidationError):
        SamplerConfig(**settings)
    with pytest.raises(InputError, match=message) as caught:
        SamplerConfig().overridden(**settings)
    assert "\n" not in str(caught.value)


def test_another_sampler_leaves_the_settings_of_the_model_s_own_behind():
    own = SamplerConfig(name="ddim", eta=0.5, guidance_interval=(0.2, 0.8))
    assert own.overridden(eta=None, name=None) == own
    assert own.overridden(eta=1.0) == own.model_copy(update={"eta": 1.0})
    assert own.overridden(name="heun") == SamplerConfig(name="heun", guidance_interval=(0.2, 0.8))
