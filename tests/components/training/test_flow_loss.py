"""The teacher's loss against values that have a closed form, for every process and prediction."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig
from components.diffusion.ddpm import cosine_chain, linear_chain
from components.diffusion.process import over, rectified_flow
from components.training.flow_loss import FlowLoss, FlowLossConfig
from tests.gaussian_data import PROCESSES, QUANTITIES, Gaussian
from tests.loss_context import context, named

NULL = TextTokens(torch.tensor([[1, 0]]), torch.tensor([[True, False]]))
MU, S = 0.5, 0.4


class Formula(nn.Module):
    """A network that predicts by a formula, and keeps its inputs."""

    def __init__(self, formula):
        super().__init__()
        self.formula, self.inputs = formula, []

    def forward(self, x_t, t, text):
        self.inputs.append((x_t, t, text))
        return self.formula(x_t, t)


def batch(x_0: torch.Tensor) -> dict:
    ids = torch.arange(2, 2 + len(x_0))[:, None].expand(-1, 4)
    return named({"x_0": x_0, "text": ids, "mask": torch.ones(len(x_0), 4, dtype=torch.bool)})


def gaussian(count: int = 4000) -> torch.Tensor:
    return MU + S * torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(9))


def value(formula, x_0, seed=0, diffusion=None, **settings) -> float:
    loss = FlowLoss(FlowLossConfig(**settings), diffusion or DiffusionConfig(), NULL)
    samples = batch(x_0)
    return loss(Formula(formula), samples, context(samples, seed)).loss.item()


def test_a_network_that_knows_the_image_has_no_loss():
    x_0 = gaussian(64)
    assert value(lambda x_t, t: x_0, x_0, time_mean=1.0) < 1e-8


def test_a_network_that_returns_the_noisy_image_has_the_whole_velocity_for_a_loss():
    """The estimated velocity is 0, so the loss is E ||eps - x_0||² = 1 + E x_0²."""
    x_0 = gaussian()
    assert value(lambda x_t, t: x_t, x_0) == pytest.approx(1 + x_0.square().mean().item(), rel=0.01)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("prediction", QUANTITIES)
@pytest.mark.parametrize("target", [None, *QUANTITIES])
def test_the_best_prediction_s_loss_is_the_target_s_conditional_variance(process, prediction, target):
    """For data N(mu, s²) and x_t = a x_0 + sigma eps, with v = a² s² + sigma² and d = a sigma' - sigma a':

    Var(x_0 | x_t) = s² sigma² / v, Var(eps | x_t) = a² s² / v, Var(velocity | x_t) = d² s² / v.
    """
    path, time = PROCESSES[process], 0.4
    data = Gaussian(MU, S)
    best = value(
        lambda x_t, t: data.estimate(path, prediction, x_t, t),
        gaussian(),
        diffusion=DiffusionConfig(process=process, prediction=prediction),
        target=target,
        times="logit_normal",
        time_mean=torch.logit(torch.tensor(time)).item(),
        time_std=1e-4,  # all times are 0.4
    )
    t = torch.tensor(time)
    a, sigma, da, ds = (f(t).item() for f in (path.alpha, path.sigma, path.alpha_slope, path.sigma_slope))
    v, d = a**2 * S**2 + sigma**2, a * ds - sigma * da
    expected = {"x_0": S**2 * sigma**2 / v, "eps": a**2 * S**2 / v, "velocity": d**2 * S**2 / v}
    own = {"rectified_flow": "velocity", "ddpm": "eps"}[process]
    assert best == pytest.approx(expected[target or own], rel=0.02)


@pytest.mark.parametrize("time_mean", [-1.0, 0.5, 2.0])
def test_any_other_prediction_is_worse_by_its_distance_in_velocity(time_mean):
    at = torch.sigmoid(torch.tensor(time_mean)).item()
    settings = {"time_mean": time_mean, "time_std": 1e-4}  # all times are `at`
    x_0, flow, data = gaussian(), rectified_flow(), Gaussian(MU, S)
    best = value(lambda x_t, t: data.estimate(flow, "x_0", x_t, t), x_0, **settings)
    for shift in (-0.05, 0.05):
        worse = value(lambda x_t, t, d=shift: data.estimate(flow, "x_0", x_t, t) + d, x_0, **settings)
        assert worse == pytest.approx(best + (shift / at) ** 2, abs=0.004 / at)


@pytest.mark.parametrize(("prediction", "at"), [("x_0", 0.01), ("preconditioned", 0.01), ("eps", 0.99)])
def test_where_the_estimate_is_clamped_the_target_is_too(prediction, at):
    """v_hat = (x_t - x_hat) / max(t, .05), of eps_hat eps_hat - (x_t - t eps_hat) / max(1 - t, .05).

    So a network that knows the truth has no loss, and an error counts by its share.
    """
    x_0 = gaussian(512)
    settings = {"time_mean": torch.logit(torch.tensor(at)).item(), "time_std": 1e-4}
    diffusion = DiffusionConfig(prediction=prediction)

    def truth(x_t, t, wrong: float = 0.0):
        eps = (x_t - over(1 - t, x_t) * x_0) / over(t, x_t)
        a, s = over(1 - t, x_t), over(t, x_t)
        variance = a**2 + s**2  # of Karras 2022, Eq. 7
        outputs = {
            "x_0": x_0 + wrong,
            "eps": eps + wrong,
            "preconditioned": (x_0 + wrong - a / variance * x_t) * variance**0.5 / s,
        }
        return outputs[prediction]

    assert value(truth, x_0, diffusion=diffusion, **settings) < 1e-6
    wrong = value(lambda x_t, t: truth(x_t, t, 0.1), x_0, diffusion=diffusion, **settings)
    slope = 1 + at / 0.05 if prediction == "eps" else 1 / 0.05
    assert wrong == pytest.approx((0.1 * slope) ** 2, rel=0.01)


def test_the_default_loss_is_flow_matching_to_the_bit():
    """As it was written when it knew rectified flow and a predicted x_0 only."""
    x_0, model = gaussian(64), Formula(lambda x_t, t: torch.tanh(x_t))
    samples = batch(x_0)
    default = FlowLoss(FlowLossConfig(), DiffusionConfig(), NULL)(model, samples, context(samples)).loss
    t = torch.sigmoid(0.3 + context(samples).noise.normal("time"))
    eps = context(samples).noise.normal("eps", x_0.shape[1:])
    x_t = over(1 - t, x_0) * x_0 + over(t, x_0) * eps
    v_hat = (x_t - torch.tanh(x_t)) / over(t.clamp(min=0.05), x_t)
    assert torch.equal(default, (v_hat - (eps - x_0)).square().mean())


@pytest.mark.parametrize(("process", "chain"), [("ddpm", linear_chain()), ("ddpm_cosine", cosine_chain())])
def test_the_loss_of_ddpm_is_l_simple(process, chain):
    """|| eps - eps_hat(sqrt(alpha-bar) x_0 + sqrt(1 - alpha-bar) eps, n) ||², n uniform (Ho 2020, Eq. 14)."""
    x_0, model = gaussian(2000).double(), Formula(lambda x_t, t: torch.tanh(x_t))
    samples = batch(x_0)
    diffusion = DiffusionConfig(process=process, prediction="eps")
    loss = FlowLoss(FlowLossConfig(), diffusion, NULL)(model, samples, context(samples)).loss
    ((_, t, _),) = model.inputs
    n = torch.round(t.double() * 1000)
    torch.testing.assert_close(t.double() * 1000, n, rtol=1e-6, atol=0)
    assert n.min() >= 1 and n.max() == 1000 and n.mean().item() == pytest.approx(500.5, abs=20)
    eps = context(samples).noise.normal("eps", x_0.shape[1:]).double()
    l_simple = (eps - torch.tanh(chain.sample(x_0, eps, n))).square().mean()
    torch.testing.assert_close(loss.double(), l_simple, rtol=1e-5, atol=0)


def test_uniform_times_of_a_flow_are_uniform():
    x_0, model = gaussian(2000), Formula(lambda x_t, t: x_t)
    samples = batch(x_0)
    FlowLoss(FlowLossConfig(times="uniform"), DiffusionConfig(), NULL)(model, samples, context(samples))
    ((_, t, _),) = model.inputs
    assert t.min() >= 0 and t.max() < 1
    assert t.mean().item() == pytest.approx(0.5, abs=0.02)
    assert t.std().item() == pytest.approx(12**-0.5, abs=0.01)


def test_the_network_is_evaluated_on_the_path_at_the_times_of_the_config():
    x_0, model = gaussian(512), Formula(lambda x_t, t: x_t)
    samples = batch(x_0)
    FlowLoss(FlowLossConfig(time_mean=0, shift=3.0), DiffusionConfig(), NULL)(
        model, samples, context(samples)
    )
    ((x_t, t, _),) = model.inputs
    eps = (x_t - over(1 - t, x_t) * x_0) / over(t, x_t)
    assert eps.mean().item() == pytest.approx(0, abs=0.03)
    assert eps.std().item() == pytest.approx(1, abs=0.03)
    assert torch.logit(t).mean().item() == pytest.approx(torch.tensor(3.0).log().item(), abs=0.15)


def test_captions_are_emptied_in_the_set_share_and_otherwise_untouched():
    samples = batch(gaussian(2000))
    for share in (0.0, 0.1, 0.5):
        model = Formula(lambda x_t, t: x_t)
        loss = FlowLoss(FlowLossConfig(caption_dropout=share), DiffusionConfig(), NULL)
        loss(model, samples, context(samples))
        text = model.inputs[0][2]
        empty = (text.values == torch.tensor([1, 0, 0, 0])).all(1)
        assert torch.equal(
            text.mask[empty], torch.tensor([[True, False, False, False]]).expand(empty.sum(), 4)
        )
        assert torch.equal(text.values[~empty], samples["text"][~empty])
        assert text.mask[~empty].all()
        assert empty.float().mean().item() == pytest.approx(share, abs=0.03)


def test_the_loss_is_a_function_of_the_noise_s_seed():
    x_0 = gaussian(16)
    first, again, other = (value(lambda x_t, t: x_t / 2, x_0, seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    "wrong",
    [{"caption_dropout": 1.0}, {"time_std": 0}, {"time_mean": float("nan")}, {"shift": 0}, {"target": "v"}],
)
def test_a_bad_value_is_refused(wrong):
    with pytest.raises(ValidationError):
        FlowLossConfig(**wrong)


def test_times_of_images_of_m_in_place_of_n_pixels_are_shifted_by_the_root_of_m_over_n():
    """Esser 2024, Eq. 23: t_m = sqrt(m/n) t_n / (1 + (sqrt(m/n) - 1) t_n)."""
    network = Formula(lambda x_t, t: x_t)
    times = {}
    for side in (4, 8):
        samples = batch(torch.zeros(500, 1, side, 2 * side))
        loss = FlowLoss(FlowLossConfig(shift_side=4, caption_dropout=0), DiffusionConfig(), NULL)
        loss(network, samples, context(samples))
        times[side] = network.inputs[-1][1]
    base = FlowLoss(FlowLossConfig(caption_dropout=0), DiffusionConfig(), NULL)
    samples = batch(torch.zeros(500, 1, 4, 4))
    base(network, samples, context(samples))
    t = network.inputs[-1][1]
    for side, root in ((4, 2**0.5), (8, 8**0.5)):
        torch.testing.assert_close(times[side], root * t / (1 + (root - 1) * t))
    assert "shift_side" not in FlowLossConfig().model_dump()
