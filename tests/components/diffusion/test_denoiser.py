"""One denoiser: whatever its network predicts, it gives all three quantities, and a consistency function."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig
from components.diffusion.denoiser import Denoiser, conditioned, make_denoiser
from components.diffusion.dit import DiT, DiTConfig
from components.diffusion.process import over
from tests.gaussian_data import PROCESSES, QUANTITIES, Gaussian

GAUSSIAN = Gaussian(mu=0.7, s=0.4)
TEXT = TextTokens(torch.ones(64, 1, dtype=torch.long), torch.ones(64, 1, dtype=torch.bool))


def points() -> tuple[torch.Tensor, torch.Tensor]:
    """x_t and t, where no process clamps."""
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(64, 1, 2, 2, generator=generator, dtype=torch.float64)
    return x_t, torch.linspace(0.06, 0.94, 64, dtype=torch.float64)


def trained_network() -> DiT:
    """One none of whose weights is zero."""
    torch.manual_seed(0)
    model = DiT(DiTConfig(image_size=8, patch=4, width=32, depth=1, heads=2, vocabulary=8))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("prediction", QUANTITIES)
def test_all_three_quantities_come_from_any_prediction(name, prediction):
    process, (x_t, t) = PROCESSES[name], points()
    denoiser = GAUSSIAN.denoiser(process, prediction)
    with_text = conditioned(denoiser, TEXT)
    for quantity in QUANTITIES:
        best = GAUSSIAN.estimate(process, quantity, x_t, t)
        torch.testing.assert_close(getattr(denoiser, quantity)(x_t, t, TEXT), best)
        torch.testing.assert_close(getattr(with_text, quantity)(x_t, t), best)


def test_its_network_is_evaluated_once_at_the_point_and_text_that_are_asked_for():
    calls = []

    def network(x_t, t, text):
        calls.append((x_t, t, text))
        return x_t

    denoiser = Denoiser(network, PROCESSES["ddpm"], "eps")
    x_t, t = points()
    for quantity in QUANTITIES:
        denoiser.estimate(quantity, x_t, t, TEXT)
    assert len(calls) == 3 and all(call == (x_t, t, TEXT) for call in calls)


def test_another_network_takes_over_process_and_prediction():
    denoiser = GAUSSIAN.denoiser(PROCESSES["ddpm"], "eps")
    other = denoiser.with_network(lambda x_t, t, text: 0 * x_t)
    assert (other.process, other.prediction) == (denoiser.process, "eps")
    x_t, t = points()
    assert not other.eps(x_t, t, TEXT).any() and denoiser.eps(x_t, t, TEXT).any()


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("prediction", QUANTITIES)
@torch.no_grad()
def test_at_the_data_the_consistency_function_is_the_identity_whatever_the_network(process, prediction):
    config = DiffusionConfig(process=process, prediction=prediction)
    student = conditioned(make_denoiser(trained_network(), config), texts(4))
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(student.consistency(x, torch.zeros(4)), x)


def texts(count: int) -> TextTokens:
    ids = torch.tensor([[1, 2, 5]]).expand(count, -1)
    return TextTokens(ids, torch.ones(count, 3, dtype=torch.bool))


@torch.no_grad()
def test_elsewhere_the_consistency_function_is_the_network_s_own_image():
    model, x, t = trained_network(), torch.randn(4, 3, 8, 8), torch.tensor([0.05, 0.3, 0.9, 1.0])
    student = conditioned(make_denoiser(model, DiffusionConfig()), texts(4))
    torch.testing.assert_close(student.consistency(x, t), model(x, t, texts(4)))
    t = torch.full((4,), 0.02)  # nearer to the data than the conversion of x_0 goes
    expected = x - 0.02 * (x - model(x, t, texts(4))) / 0.05
    torch.testing.assert_close(student.consistency(x, t), expected)


@torch.no_grad()
def test_the_defaults_are_rectified_flow_and_a_predicted_image_to_the_bit():
    """As the velocity and the consistency function were written when there were no others."""
    model, x_t, t = trained_network(), torch.randn(5, 3, 8, 8), torch.tensor([0.0, 0.01, 0.04, 0.37, 1.0])
    denoiser = conditioned(make_denoiser(model, DiffusionConfig()), texts(5))
    x_0 = model(x_t, t, texts(5))
    velocity = (x_t - x_0) / over(t.clamp(min=0.05), x_t)
    assert torch.equal(denoiser.x_0(x_t, t), x_0)
    assert torch.equal(denoiser.velocity(x_t, t), velocity)
    assert torch.equal(denoiser.consistency(x_t, t), x_t - over(t, x_t) * velocity)


@pytest.mark.parametrize("wrong", [{"process": "edm"}, {"prediction": "v"}, {"loss": 1}])
def test_a_process_or_prediction_that_is_none_is_refused(wrong):
    with pytest.raises(ValidationError):
        DiffusionConfig(**wrong)
