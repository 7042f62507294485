"""The teacher's loss against values that have a closed form."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from components.conditioning.text import TextTokens
from components.diffusion.process import over, rectified_flow
from components.training.flow_loss import FlowLossConfig, flow_loss

NULL = TextTokens(torch.tensor([[1, 0]]), torch.tensor([[True, False]]))
MU, S = 0.5, 0.4


class Says(nn.Module):
    """A network that predicts x_0 by a formula, and keeps what it was asked."""

    def __init__(self, formula):
        super().__init__()
        self.formula, self.asked = formula, []

    def forward(self, x_t, t, text):
        self.asked.append((x_t, t, text))
        return self.formula(x_t, t)


def batch(x_0: torch.Tensor) -> dict[str, torch.Tensor]:
    ids = torch.arange(2, 2 + len(x_0))[:, None].expand(-1, 4)
    return {"x_0": x_0, "text": ids, "mask": torch.ones(len(x_0), 4, dtype=torch.bool)}


def gaussian(count: int = 4000) -> torch.Tensor:
    return MU + S * torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(9))


def value(formula, x_0, seed=0, **settings) -> float:
    loss = flow_loss(FlowLossConfig(**settings), NULL)
    return loss(Says(formula), batch(x_0), torch.Generator().manual_seed(seed)).loss.item()


def test_one_who_knows_the_image_has_no_loss():
    x_0 = gaussian(64)
    assert value(lambda x_t, t: x_0, x_0, time_mean=1.0) < 1e-8


def test_one_who_says_the_noisy_image_has_the_whole_velocity_for_a_loss():
    """v_hat = 0, so the loss is E ||eps - x_0||² = 1 + E x_0²."""
    x_0 = gaussian()
    assert value(lambda x_t, t: x_t, x_0) == pytest.approx(1 + x_0.square().mean().item(), rel=0.01)


@pytest.mark.parametrize("time_mean", [-1.0, 0.5, 2.0])
def test_the_best_prediction_s_loss_is_the_velocity_s_conditional_variance(time_mean):
    """For data N(mu, s²): Var(v | x_t) = s² / ((1-t)² s² + t²), and any other prediction is worse."""

    def best(x_t, t, shift=0.0):
        t = over(t, x_t)
        variance = (1 - t) ** 2 * S**2 + t**2
        return MU + shift + (1 - t) * S**2 / variance * (x_t - (1 - t) * MU)

    at = torch.sigmoid(torch.tensor(time_mean)).item()
    settings = {"time_mean": time_mean, "time_std": 1e-4}  # all times are `at`
    x_0 = gaussian()
    found = value(best, x_0, **settings)
    assert found == pytest.approx(S**2 / ((1 - at) ** 2 * S**2 + at**2), rel=0.02)
    for shift in (-0.05, 0.05):
        worse = value(lambda x_t, t, shift=shift: best(x_t, t, shift), x_0, **settings)
        assert worse == pytest.approx(found + (shift / at) ** 2, abs=0.004 / at)


def test_the_network_is_asked_on_the_path_at_the_drawn_times():
    x_0, model = gaussian(512), Says(lambda x_t, t: x_t)
    flow_loss(FlowLossConfig(time_mean=0, shift=3.0), NULL)(
        model, batch(x_0), torch.Generator().manual_seed(0)
    )
    ((x_t, t, _),) = model.asked
    eps = rectified_flow().eps_from_v(x_t, (x_t - x_0) / over(t, x_0), t)  # (x_t - x_0) / t = eps - x_0
    assert eps.mean().item() == pytest.approx(0, abs=0.03)
    assert eps.std().item() == pytest.approx(1, abs=0.03)
    assert torch.logit(t).mean().item() == pytest.approx(torch.tensor(3.0).log().item(), abs=0.15)


def test_captions_are_emptied_in_the_set_share_and_otherwise_untouched():
    x_0 = gaussian(2000)
    given = batch(x_0)
    for share in (0.0, 0.1, 0.5):
        model = Says(lambda x_t, t: x_t)
        flow_loss(FlowLossConfig(caption_dropout=share), NULL)(model, given, torch.Generator().manual_seed(0))
        text = model.asked[0][2]
        empty = (text.values == torch.tensor([1, 0, 0, 0])).all(1)
        assert torch.equal(
            text.mask[empty], torch.tensor([[True, False, False, False]]).expand(empty.sum(), 4)
        )
        assert torch.equal(text.values[~empty], given["text"][~empty])
        assert text.mask[~empty].all()
        assert empty.float().mean().item() == pytest.approx(share, abs=0.03)


def test_the_loss_is_a_function_of_the_generator():
    x_0 = gaussian(16)
    first, again, other = (value(lambda x_t, t: x_t / 2, x_0, seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    "wrong", [{"caption_dropout": 1.0}, {"time_std": 0}, {"time_mean": float("nan")}, {"shift": 0}]
)
def test_a_bad_value_is_refused(wrong):
    with pytest.raises(ValidationError):
        FlowLossConfig(**wrong)
