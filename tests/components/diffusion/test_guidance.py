"""Guidance as a denoiser: linear in its scale, the same whichever quantity is guided."""

from dataclasses import replace

import pytest
import torch

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig
from components.diffusion.denoiser import Autoguide, Denoiser, make_denoiser
from components.diffusion.dit import DiT, DiTConfig
from components.diffusion.guidance import guided
from components.diffusion.process import Process, over
from tests.gaussian_data import PROCESSES, QUANTITIES, Gaussian

IDS = torch.tensor([[1, 4, 5, 6, 0, 0, 0, 0], [1, 7, 0, 0, 0, 0, 0, 0]])
TEXT = TextTokens(IDS, IDS > 0)
NULL = TextTokens(torch.tensor([[1, 0]]), torch.tensor([[True, False]]))


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("quantity", QUANTITIES)
@torch.no_grad()
def test_guidance_is_linear_in_its_scale_and_one_is_the_conditional_model(process, quantity):
    torch.manual_seed(0)
    model = DiT(DiTConfig(image_size=8, patch=4, width=32, depth=1, heads=2, vocabulary=20))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    denoiser = make_denoiser(model, DiffusionConfig(process=process))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.9, 0.3])
    at = {w: guided(denoiser, TEXT, NULL, w).estimate(quantity, x, t) for w in (0.0, 1.0, 3.0, -1.5)}
    assert torch.equal(at[1.0], denoiser.estimate(quantity, x, t, TEXT))
    null = denoiser.estimate(quantity, x, t, NULL.repeat(2, 8))
    torch.testing.assert_close(at[0.0], null, atol=1e-4, rtol=1e-4)
    for w in (3.0, -1.5):
        torch.testing.assert_close(at[w], at[0.0] + w * (at[1.0] - at[0.0]), atol=1e-3, rtol=1e-3)
    assert (at[1.0] - at[0.0]).abs().max() > 0.01


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("prediction", QUANTITIES)
def test_guiding_one_quantity_is_guiding_the_others(name, prediction):
    """Of Gaussians of one s the guided denoiser is that of mu = mu_null + w (mu_cond - mu_null)."""
    process, scale = PROCESSES[name], 3.0
    denoiser, (x_t, t) = guided(two_gaussians(process, prediction), TEXT, NULL, scale), points()
    assert denoiser.process is process
    for quantity in QUANTITIES:
        expected = Gaussian(0.2 + scale * 0.2, s=0.5).estimate(process, quantity, x_t, t)
        torch.testing.assert_close(denoiser.estimate(quantity, x_t, t), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("prediction", QUANTITIES)
def test_guidance_leads_away_from_the_autoguide_of_the_same_caption(name, prediction):
    """Of Gaussians of one s: mu_null + w (mu_cond - mu_null) + a (mu_cond - mu_guide); unguided at w = 1."""
    process, (x_t, t) = PROCESSES[name], points()
    alone = two_gaussians(process, prediction)
    weaker = two_gaussians(process, prediction, shift=-0.3)
    both = replace(alone, autoguide=Autoguide(weaker.network, scale=2.0))
    for quantity in QUANTITIES:
        expected = Gaussian(0.2 + 3.0 * 0.2 + 2.0 * 0.3, s=0.5).estimate(process, quantity, x_t, t)
        estimate = guided(both, TEXT, NULL, 3.0).estimate(quantity, x_t, t)
        torch.testing.assert_close(estimate, expected, rtol=1e-6, atol=1e-6)
        within = guided(both, TEXT, NULL, 3.0, interval=(0.2, 0.5)).estimate(quantity, x_t, t)
        unguided = alone.estimate(quantity, x_t, t, TEXT)
        torch.testing.assert_close(within, torch.stack([expected[0], unguided[1]]), rtol=1e-6, atol=1e-6)
        assert torch.equal(guided(both, TEXT, NULL, 1.0).estimate(quantity, x_t, t), unguided)


def test_another_network_of_a_denoiser_has_not_its_autoguide():
    denoiser = two_gaussians(PROCESSES["ddpm"], "x_0")
    guide = Autoguide(torch.nn.Identity(), scale=1.0)
    both = replace(denoiser, autoguide=guide)
    assert both.with_network(denoiser.network).autoguide is None
    assert both.to(torch.device("cpu")).autoguide == guide
    moved = replace(both, network=torch.nn.Linear(1, 1), autoguide=Autoguide(torch.nn.Linear(1, 1), 1.0))
    moved = moved.to(torch.device("meta"))
    assert moved.network.weight.is_meta and moved.autoguide.network.weight.is_meta


def two_gaussians(process: Process, prediction: str, shift: float = 0.0) -> Denoiser:
    """Of mu .4 with a caption and .2 without, both shifted, one deviation."""

    def network(x_t, t, text):
        mu = torch.where(text.mask.sum(1) > 1, 0.4, 0.2).double() + shift
        return Gaussian(mu, s=0.5).estimate(process, prediction, x_t, t)

    return Denoiser(network, process, prediction)


def points() -> tuple[torch.Tensor, torch.Tensor]:
    x_t = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x_t, torch.tensor([0.3, 0.8], dtype=torch.float64)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_guidance_acts_in_its_interval_and_leaves_the_conditional_outside(name, quantity):
    """Image by image: the batch's times are .3 and .8."""
    denoiser, (x_t, t) = two_gaussians(PROCESSES[name], "x_0"), points()
    always = guided(denoiser, TEXT, NULL, 3.0).estimate(quantity, x_t, t)
    never = denoiser.estimate(quantity, x_t, t, TEXT)
    for interval, inside in (
        ((0.2, 0.5), [True, False]),
        ((0.8, 0.9), [False, True]),
        ((0.1, 0.9), [True] * 2),
    ):
        limited = guided(denoiser, TEXT, NULL, 3.0, interval=interval).estimate(quantity, x_t, t)
        expected = torch.where(over(torch.tensor(inside), x_t), always, never)
        torch.testing.assert_close(limited, expected)


def test_outside_its_interval_guidance_costs_nothing():
    sizes = []

    def network(x_t, t, text):
        sizes.append(len(x_t))
        return x_t

    denoiser, (x_t, t) = Denoiser(network, PROCESSES["ddpm"], "eps"), points()
    limited = guided(denoiser, TEXT, NULL, 3.0, interval=(0.4, 0.6))
    limited.eps(x_t, t)
    limited.eps(x_t, torch.full_like(t, 0.6))
    assert sizes == [2, 4]


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_a_rescaled_prediction_has_the_deviation_of_the_conditional(share):
    """Lin 2023, Eq. 15-16, of what the network predicts; the other quantities follow."""
    process, (x_t, t) = PROCESSES["ddpm"], points()

    def network(x_t, t, text):
        with_caption = over(text.mask.sum(1) > 1, x_t)
        conditional, null = (Gaussian(0.2, s).estimate(process, "velocity", x_t, t) for s in (0.5, 0.3))
        return torch.where(with_caption, conditional, null)

    denoiser = Denoiser(network, process, "velocity")
    plain, conditional = guided(denoiser, TEXT, NULL, 3.0).velocity(x_t, t), denoiser.velocity(x_t, t, TEXT)
    limited = guided(denoiser, TEXT, NULL, 3.0, rescale=share)
    deviations = [v.std((1, 2, 3), keepdim=True) for v in (conditional, plain)]
    expected = share * plain * (deviations[0] / deviations[1]) + (1 - share) * plain
    torch.testing.assert_close(limited.velocity(x_t, t), expected)
    x_0 = process.convert(expected, x_t, t, source="velocity", target="x_0")
    torch.testing.assert_close(limited.x_0(x_t, t), x_0)
    rescaled = limited.velocity(x_t, t).std((1, 2, 3), keepdim=True)
    assert torch.allclose(rescaled, deviations[0]) == (share == 1.0)
