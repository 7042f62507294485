"""Our samplers against diffusers' schedulers, from the same model outputs and noises: to rounding.

A scheduler's timestep k is the chain's step k + 1, our time (k + 1) / 1000. The chains' tables are put in
double precision, which diffusers keeps in single; where its steps round to single, so does the comparison.
"""

from collections.abc import Callable

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
)
from torch import Tensor

from components.diffusion import samplers
from components.diffusion.ddpm import Chain, cosine_chain, linear_chain
from components.diffusion.denoiser import ConditionedDenoiser, conditioned
from components.diffusion.process import Process, chain_process, rectified_flow
from components.diffusion.times import even_times
from tests.mixture_data import Mixture
from tests.one_text import NO_TEXT

STEPS = 20
DOUBLE, SINGLE = {"rtol": 1e-7, "atol": 1e-7}, {"rtol": 1e-5, "atol": 1e-5}
CHAINS = {"linear": linear_chain, "cosine": cosine_chain}


@pytest.fixture(params=CHAINS)
def chain(request) -> Chain:
    return CHAINS[request.param]()


def denoiser(process: Process) -> ConditionedDenoiser:
    return conditioned(Mixture().denoiser(process, "x_0"), NO_TEXT)


def start() -> Tensor:
    return torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def noises() -> tuple[torch.Generator, Callable[[int], Tensor]]:
    """A scheduler's generator, and its numbers in the order in which it draws them."""
    ours = torch.Generator().manual_seed(7)
    draw = lambda _: torch.randn(3, 1, 4, 4, generator=ours, dtype=torch.float64)  # noqa: E731
    return torch.Generator().manual_seed(7), draw


def chain_times() -> Tensor:
    return torch.round(even_times(STEPS).double() * 1000) / 1000


def scheduler_of(kind: type, chain: Chain, **settings):
    scheduler = kind(timestep_spacing="trailing", **settings)
    scheduler.alphas_cumprod = chain.alpha_bars[1:]
    scheduler.set_timesteps(STEPS)
    assert (scheduler.timesteps + 1).tolist() == [round(1000 * t) for t in chain_times()[:-1].tolist()]
    return scheduler


def walk(scheduler, denoiser: ConditionedDenoiser, quantity: str, steps: int = STEPS, **settings) -> Tensor:
    """The scheduler's loop over a chain."""
    x = start()
    for k in scheduler.timesteps[:steps]:
        output = denoiser.estimate(quantity, x, ((k + 1) / 1000).double().expand(3))
        x = scheduler.step(output, k, x, **settings).prev_sample
    return x


@pytest.mark.parametrize(("variance", "name"), [("beta", "fixed_large"), ("beta_tilde", "fixed_small")])
def test_ancestral_steps_are_ddpm_scheduler_s(chain, variance, name):
    """All but the last, to which that scheduler adds noise unless it leads from step 1."""
    model, (generator, fresh) = denoiser(chain_process(chain)), noises()
    scheduler = scheduler_of(DDPMScheduler, chain, variance_type=name, clip_sample=False)
    theirs = walk(scheduler, model, "eps", STEPS - 1, generator=generator)
    ours = samplers.ddpm(model, start(), chain_times()[:-1], fresh, variance=variance)
    torch.testing.assert_close(ours, theirs, **DOUBLE)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_is_ddim_scheduler_s(chain, eta):
    model, (generator, fresh) = denoiser(chain_process(chain)), noises()
    scheduler = scheduler_of(DDIMScheduler, chain, clip_sample=False)
    theirs = walk(scheduler, model, "eps", eta=eta, generator=generator)
    torch.testing.assert_close(samplers.ddim(model, start(), chain_times(), fresh, eta=eta), theirs, **DOUBLE)


def test_the_multistep_solver_is_dpm_solver_scheduler_s(chain):
    model = denoiser(chain_process(chain))
    scheduler = scheduler_of(DPMSolverMultistepScheduler, chain)
    alpha_bars = chain.alpha_bars[scheduler.timesteps + 1]
    scheduler.sigmas = torch.cat([((1 - alpha_bars) / alpha_bars).sqrt(), torch.zeros(1).double()])
    theirs = walk(scheduler, model, "eps")
    torch.testing.assert_close(samplers.dpm_solver_2m(model, start(), chain_times()), theirs, **SINGLE)


def test_a_flow_s_multistep_solver_is_dpm_solver_scheduler_s():
    """From pure noise, where the log-SNR is infinite."""
    model, times, x = denoiser(rectified_flow()), even_times(STEPS), start().float()
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.set_timesteps(STEPS)
    scheduler.sigmas = times
    for k, t in zip(scheduler.timesteps, times, strict=False):
        x = scheduler.step(model.velocity(x, t.expand(3)), k, x).prev_sample
    ours = samplers.dpm_solver_2m(denoiser(rectified_flow()), start().float(), times)
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-3)


def test_euler_steps_are_flow_match_euler_scheduler_s():
    model, times, x = denoiser(rectified_flow()), even_times(STEPS), start().float()
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=times[:-1].tolist())
    for k, t in zip(scheduler.timesteps, times, strict=False):
        x = scheduler.step(model.velocity(x, t.expand(3)), k, x).prev_sample
    torch.testing.assert_close(samplers.euler(model, start().float(), times), x, **SINGLE)


def test_consistency_steps_are_flow_match_lcm_scheduler_s():
    model, times, x = denoiser(rectified_flow()), even_times(4), start()
    generator, fresh = noises()
    scheduler = FlowMatchLCMScheduler()
    scheduler.set_timesteps(sigmas=times[:-1].tolist())
    for k, t in zip(scheduler.timesteps, times, strict=False):
        x = scheduler.step(model.velocity(x, t.double().expand(3)), k, x, generator=generator).prev_sample
    torch.testing.assert_close(samplers.consistency(model, start(), times.double(), fresh), x, **SINGLE)
