"""Samplers: `sampler(denoiser, start, times, fresh_noise)` walks from noise (or a noised image) to an image.

start: (B, C, H, W) at times[0]. times: (N + 1,), on the CPU, usually falling to 0; N evaluations of the
denoiser (Heun's method: up to 2 N). Grids are in times.py. fresh_noise(step): noise (B, C, H, W) for the step
that leads to times[step]; only stochastic samplers ask for it. An editing sampler is one of these with
another start and grid. All are written for any affine path, so they sample every process.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from components.diffusion.config import SamplerConfig, SamplerName, VarianceName
from components.diffusion.denoiser import ConditionedDenoiser
from components.diffusion.process import PathSample, over
from components.randomness import SampleSeed, derive_seed, sample_seeds

Step = Callable[[ConditionedDenoiser, Tensor, Tensor, Tensor], Tensor]
FreshNoise = Callable[[int], Tensor]  # step -> (B, C, H, W); the first step is 1
Sampler = Callable[[ConditionedDenoiser, Tensor, Tensor, FreshNoise], Tensor]


def get_noise(shape: Sequence[int], seed: int, purpose: str, first: int = 0) -> Tensor:
    """Noise (B, C, H, W) on the CPU; image `first + i` has the same noise in whatever batch it is."""
    batch, *image = shape
    return noise_of(sample_seeds(seed, batch, first), image, purpose)


def noise_of(seeds: Sequence[SampleSeed], image: Sequence[int], purpose: str) -> Tensor:
    """Noise (B, C, H, W) on the CPU for images (C, H, W), each from its own (seed, index)."""
    rows = []
    for sample in seeds:
        generator = torch.Generator().manual_seed(derive_seed(sample.seed, purpose, sample.index))
        rows.append(torch.randn(tuple(image), generator=generator))
    return torch.stack(rows)


def make_sampler(config: SamplerConfig) -> Sampler:
    """The sampler that a config names, with its settings."""
    settings: dict[str, dict[str, Any]] = {
        "ddim": {"eta": config.eta},
        "ddpm": {"variance": config.variance},
    }
    return partial(SAMPLERS[config.name], **settings.get(config.name, {}))


def euler(
    denoiser: ConditionedDenoiser, start: Tensor, times: Tensor, fresh_noise: FreshNoise | None = None
) -> Tensor:
    """Integrate dx = v dt along `times` with first-order steps."""
    x = start
    for t, s in _steps(times, start):
        x = euler_step(denoiser, x, t, s)
    return x


def heun(
    denoiser: ConditionedDenoiser, start: Tensor, times: Tensor, fresh_noise: FreshNoise | None = None
) -> Tensor:
    """Integrate dx = v dt along `times` with second-order steps, of two evaluations each.

    A step to 0 is of first order (Karras 2022, Algorithm 1): at the data, an image gives no velocity.
    """
    x = start
    for step, (t, s) in enumerate(_steps(times, start), start=1):
        velocity = _estimate(denoiser, x, t).velocity if times[step - 1] > 0 else denoiser.velocity(x, t)
        if times[step] > 0:
            ahead = x + over(s - t, x) * velocity
            velocity = (velocity + _estimate(denoiser, ahead, s).velocity) / 2
        x = x + over(s - t, x) * velocity
    return x


def dpm_solver_2m(
    denoiser: ConditionedDenoiser, start: Tensor, times: Tensor, fresh_noise: FreshNoise | None = None
) -> Tensor:
    """DPM-Solver++(2M), of second order with one evaluation a step (Lu 2022b, Algorithm 2).

    Integrates exactly in the half log-SNR lambda = log(alpha / sigma), the image x_0 along it a line through
    this and the last step's; of first order where lambda starts or ends infinite, at noise without signal and
    at the data.
    """
    x, last = start, None  # last: the step before, its image and how far it went in lambda
    for t, s in _steps(times, start):
        (a_t, s_t), (a_s, s_s) = (_signal_and_noise(denoiser, at, x) for at in (t, s))
        x_0, h = denoiser.x_0(x, t), torch.log(a_s * s_t / (a_t * s_s))
        ahead = x_0
        if last is not None:
            ahead = x_0 + torch.where(h.isinf(), 0.0, h / (2 * last[1])) * (x_0 - last[0])
        x = s_s / s_t * x + (a_s - a_t * s_s / s_t) * ahead
        last = x_0, h
    return x


def ddim(
    denoiser: ConditionedDenoiser, start: Tensor, times: Tensor, fresh_noise: FreshNoise, *, eta: float = 0.0
) -> Tensor:
    """DDIM (J. Song 2021, Eq. 12), between any two times: no noise with eta 0, with 1 as much as `ddpm`."""
    x = start
    for step, (t, s) in enumerate(_steps(times, start), start=1):
        point, (a_s, s_s) = _estimate(denoiser, x, t), _signal_and_noise(denoiser, s, x)
        variance = eta**2 * denoiser.process.posterior(t, s, x).variance
        x = a_s * point.x_0 + (s_s.square() - variance).clamp(min=0).sqrt() * point.eps
        if eta and times[step] > 0:
            x = x + variance.sqrt() * fresh_noise(step).to(x.device)
    return x


def ddpm(
    denoiser: ConditionedDenoiser,
    start: Tensor,
    times: Tensor,
    fresh_noise: FreshNoise,
    *,
    variance: VarianceName = "beta_tilde",
) -> Tensor:
    """Ancestral sampling (Ho 2020, Algorithm 2), between any two times; the last step adds no noise.

    variance: of a step, given x_0 (beta-tilde), or for data of variance 1, on a chain its beta (Section 3.2).
    """
    x = start
    for step, (t, s) in enumerate(_steps(times, start), start=1):
        posterior = denoiser.process.posterior(t, s, x)
        x_0 = denoiser.x_0(x, t)
        spread = posterior.variance
        if variance == "beta":
            a_t, s_t = _signal_and_noise(denoiser, t, x)
            of_x_0 = s_t.square() / (a_t.square() + s_t.square())  # Var(x_0 | x_t) where x_0 has variance 1
            spread = spread + posterior.x_0_weight.square() * of_x_0
        x = posterior.mean(x, x_0)
        if times[step] > 0:
            x = x + spread.sqrt() * fresh_noise(step).to(x.device)
    return x


def sde(denoiser: ConditionedDenoiser, start: Tensor, times: Tensor, fresh_noise: FreshNoise) -> Tensor:
    """Euler-Maruyama steps of the reverse SDE dx = (v - g² / 2 score) dt + g dw (Song 2021, Eq. 6).

    g²: the process's diffusion. The step to 0 is the denoiser's image, which has no noise in it.
    """
    x, process = start, denoiser.process
    for step, (t, s) in enumerate(_steps(times, start), start=1):
        point = _estimate(denoiser, x, t)
        if times[step] == 0:
            return point.x_0
        h, added = over(t - s, x), over(process.diffusion(t), x)
        score = -point.eps / over(process.sigma(t), x)
        x = x - h * (point.velocity - added / 2 * score)
        x = x + (h * added).sqrt() * fresh_noise(step).to(x.device)
    return x


def consistency(
    denoiser: ConditionedDenoiser, start: Tensor, times: Tensor, fresh_noise: FreshNoise
) -> Tensor:
    """Multistep consistency sampling (Song 2023, Algorithm 1): predict x_0, add fresh noise, predict again.

    The last time, 0, is where the last prediction lies.
    """
    x = start
    for step, (t, s) in enumerate(_steps(times, start), start=1):
        x_0 = denoiser.consistency(x, t)
        if step == len(times) - 1:
            return x_0
        x = denoiser.process.sample(x_0, fresh_noise(step).to(x_0.device), s).x_t
    return x


def euler_step(denoiser: ConditionedDenoiser, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One first-order step from t to s, both (B,)."""
    return x + over(s - t, x) * denoiser.velocity(x, t)


def heun_step(denoiser: ConditionedDenoiser, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One second-order step from t to s, both (B,)."""
    velocity = denoiser.velocity(x, t)
    ahead = x + over(s - t, x) * velocity
    return x + over(s - t, x) * (velocity + denoiser.velocity(ahead, s)) / 2


STEPS: dict[str, Step] = {"euler": euler_step, "heun": heun_step}  # by a config's name of them
SAMPLERS: dict[SamplerName, Callable[..., Tensor]] = {
    "euler": euler,
    "heun": heun,
    "dpm_solver_2m": dpm_solver_2m,
    "sde": sde,
    "ddpm": ddpm,
    "ddim": ddim,
    "consistency": consistency,
}


def _steps(times: Tensor, start: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """From which time to which, for every image of the batch: (B,) each."""
    for t, s in pairwise(times.to(start.device)):
        yield t.expand(len(start)), s.expand(len(start))


def _estimate(denoiser: ConditionedDenoiser, x: Tensor, t: Tensor) -> PathSample:
    """The point of the path at t > 0 whose image is the denoiser's, from one evaluation.

    Its eps and velocity are exact down to the data, where the process's conversions of x_0 are clamped for
    training: the noise of the last step before 0 is not zero, and a sampler divides by no other.
    """
    x_0, (a, sigma) = denoiser.x_0(x, t), _signal_and_noise(denoiser, t, x)
    return denoiser.process.sample(x_0, (x - a * x_0) / sigma, t)


def _signal_and_noise(denoiser: ConditionedDenoiser, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at t (B,), shaped to multiply x."""
    return over(denoiser.process.alpha(t), x), over(denoiser.process.sigma(t), x)
