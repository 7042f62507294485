"""Guidance as a denoiser: linear in its scale, the same whichever quantity is guided."""

import pytest
import torch

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig
from components.diffusion.denoiser import Denoiser, make_denoiser
from components.diffusion.dit import DiT, DiTConfig
from components.diffusion.guidance import guided
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

    def network(x_t, t, text):
        mu = torch.where(text.mask.sum(1) > 1, 0.4, 0.2).double()
        return Gaussian(mu, s=0.5).estimate(process, prediction, x_t, t)

    denoiser = guided(Denoiser(network, process, prediction), TEXT, NULL, scale)
    assert denoiser.process is process
    x_t = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.3, 0.8], dtype=torch.float64)
    for quantity in QUANTITIES:
        expected = Gaussian(0.2 + scale * 0.2, s=0.5).estimate(process, quantity, x_t, t)
        torch.testing.assert_close(denoiser.estimate(quantity, x_t, t), expected, rtol=1e-6, atol=1e-6)
