"""DDPM's chain against the paper's own equations, in float64, and the path in continuous time through it."""

import math

import pytest
import torch

from components.diffusion import samplers
from components.diffusion.ddpm import Chain, cosine_chain, linear_chain
from components.diffusion.denoiser import conditioned
from components.diffusion.process import chain_process
from components.diffusion.times import even_times
from tests.gaussian_data import Gaussian
from tests.one_text import NO_TEXT

EXACT = {"rtol": 1e-12, "atol": 1e-12}
CHAINS = {"linear": linear_chain, "cosine": cosine_chain}
STEPS = torch.tensor([1, 2, 10, 500, 999, 1000])


@pytest.fixture(params=CHAINS)
def chain(request) -> Chain:
    return CHAINS[request.param]()


def images(count: int = len(STEPS), seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_linear_schedule_is_ho_s():
    betas = linear_chain().betas
    assert len(betas) == 1000 and betas[0].item() == 1e-4 and betas[-1].item() == 0.02
    torch.testing.assert_close(betas.diff(), torch.full((999,), (0.02 - 1e-4) / 999).double(), **EXACT)


def test_the_cosine_schedule_is_nichol_s_up_to_its_last_beta():
    f = [math.cos((n / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for n in range(1000)]
    expected = torch.tensor(f, dtype=torch.float64) / f[0]
    torch.testing.assert_close(cosine_chain().alpha_bars[:1000], expected, rtol=1e-9, atol=0)
    assert cosine_chain().betas[-1].item() == 0.999 and cosine_chain().betas[:-1].max() < 0.999


def test_many_steps_of_noise_are_the_closed_form(chain):
    """q(x_n | x_0) step by step: the mean shrinks by sqrt(1 - beta), the variance grows by beta (Eq. 2)."""
    signal, variance = 1.0, 0.0
    for n, beta in enumerate(chain.betas.tolist(), start=1):
        signal, variance = math.sqrt(1 - beta) * signal, (1 - beta) * variance + beta
        if n in STEPS:
            one, at = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.tensor([n])
            assert chain.sample(one, 0 * one, at).item() == pytest.approx(signal, rel=1e-10)
            assert chain.sample(0 * one, one, at).item() ** 2 == pytest.approx(variance, rel=1e-10)


def test_the_posterior_is_bayes_rule(chain):
    """q(x_{n-1} | x_n, x_0) by precisions: of q(x_n | x_{n-1}) and of q(x_{n-1} | x_0)."""
    n, x_0, x_n = STEPS[1:], images()[1:], images(seed=1)[1:]
    beta, before = (table.view(-1, 1, 1, 1) for table in (chain.betas[n - 1], chain.alpha_bars[n - 1]))
    precision = (1 - beta) / beta + 1 / (1 - before)
    mean = ((1 - beta).sqrt() / beta * x_n + before.sqrt() / (1 - before) * x_0) / precision
    posterior = chain.posterior(n, x_0)
    torch.testing.assert_close(posterior.mean(x_n, x_0), mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(posterior.variance, 1 / precision, rtol=1e-9, atol=0)


def test_the_first_step_s_posterior_is_the_image_itself(chain):
    posterior = chain.posterior(torch.tensor([1]), images(1))
    assert torch.equal(posterior.variance, torch.zeros_like(posterior.variance))
    torch.testing.assert_close(posterior.mean(images(1, 1), images(1)), images(1), **EXACT)


def test_the_path_in_continuous_time_is_the_chain_at_its_steps(chain):
    n, process = torch.arange(1001), chain_process(chain)
    t = n.double() / 1000
    torch.testing.assert_close(process.alpha(t) ** 2, chain.alpha_bars, rtol=1e-9, atol=0)
    torch.testing.assert_close(process.sigma(t) ** 2, 1 - chain.alpha_bars, rtol=1e-9, atol=1e-16)
    single = process.alpha(t.float()).double() ** 2
    torch.testing.assert_close(single, chain.alpha_bars, rtol=2e-5, atol=1e-7)
    steps = STEPS[:, None, None, None].expand(-1, 2, 3, 3)[:, 0, 0, 0]
    x_t = process.sample(images(), images(seed=1), steps.double() / 1000).x_t
    torch.testing.assert_close(x_t, chain.sample(images(), images(seed=1), steps), rtol=1e-9, atol=1e-9)


def test_between_its_steps_the_path_falls_smoothly(chain):
    t = torch.linspace(0, 1, 40_001, dtype=torch.float64).requires_grad_()
    value, slope = chain.log_alpha_bar(t), chain.log_alpha_bar_slope(t).detach()
    assert (value.diff() < 0).all()
    torch.testing.assert_close(torch.autograd.grad(value.sum(), t)[0], slope, rtol=1e-9, atol=1e-9)
    knots = torch.arange(1, 1000).double() / 1000
    ahead, behind = (chain.log_alpha_bar_slope(knots + step) for step in (1e-9, -1e-9))
    torch.testing.assert_close(ahead, behind, rtol=1e-2 if chain is cosine_chain() else 1e-5, atol=1e-3)


def test_the_process_s_posterior_is_the_chain_s_and_goes_over_many_steps(chain):
    process, n = chain_process(chain), STEPS
    one, own = process.posterior(n.double() / 1000, (n - 1).double() / 1000, images()), None
    own = chain.posterior(n, images())
    for name in ("x_t_weight", "x_0_weight", "variance"):
        torch.testing.assert_close(getattr(one, name), getattr(own, name), rtol=1e-7, atol=1e-12)
    # Two steps in one: q(x_r | x_t, x_0) is q(x_r | x_s, x_0) over q(x_s | x_t, x_0).
    t, s, r = (torch.tensor([at], dtype=torch.float64) for at in (0.7, 0.4, 0.2))
    far, first, second = (process.posterior(*pair, images(1)) for pair in ((t, r), (t, s), (s, r)))
    torch.testing.assert_close(far.x_t_weight, second.x_t_weight * first.x_t_weight, **EXACT)
    x_0_weight = second.x_0_weight + second.x_t_weight * first.x_0_weight
    torch.testing.assert_close(far.x_0_weight, x_0_weight, **EXACT)
    variance = second.variance + second.x_t_weight**2 * first.variance
    torch.testing.assert_close(far.variance, variance, **EXACT)


@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
def test_ancestral_sampling_is_algorithm_2(chain, variance):
    """x_{n-1} = (x_n - beta / sqrt(1 - alpha-bar) eps) / sqrt(alpha) + sigma z, and no z in the last step."""
    last, process = 25, chain_process(chain)
    denoiser = conditioned(Gaussian(0.7, 0.4).denoiser(process, "eps"), NO_TEXT)
    x = images(3)
    for n in range(last, 0, -1):
        t = torch.full((3,), n / 1000, dtype=torch.float64)
        beta, alpha_bar, before = chain.betas[n - 1], chain.alpha_bars[n], chain.alpha_bars[n - 1]
        x = (x - beta / (1 - alpha_bar).sqrt() * denoiser.eps(x, t)) / (1 - beta).sqrt()
        if n > 1:
            spread = beta if variance == "beta" else (1 - before) / (1 - alpha_bar) * beta
            x = x + spread.sqrt() * images(3, seed=last - n + 1)
    times = even_times(last, last / 1000).double()
    times = torch.round(times * 1000) / 1000
    sampled = samplers.ddpm(denoiser, images(3), times, lambda step: images(3, seed=step), variance=variance)
    torch.testing.assert_close(sampled, x, rtol=1e-8, atol=1e-8)
