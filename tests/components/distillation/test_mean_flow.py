"""MeanFlow: derivatives against finite differences, the objective and its samples against a known flow."""

import copy

import pytest
import torch
from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig
from components.diffusion.denoiser import Denoiser, conditioned, make_denoiser
from components.diffusion.dit import FEW_TOKENS, DiT, DiTConfig
from components.diffusion.mean_flow import mean_flow, toward
from components.diffusion.process import over, rectified_flow
from components.distillation.config import ConsistencyConfig
from components.distillation.mean_flow import average_velocity, draw_span, mean_flow_loss
from components.errors import InputError
from tests.gaussian_data import Gaussian
from tests.loss_context import context, named

S, MU_NULL, MU_COND, GUIDANCE = 0.5, 0.2, 0.4, 3.0
GUIDED = Gaussian(MU_NULL + GUIDANCE * (MU_COND - MU_NULL), S)
NULL = TextTokens(torch.tensor([[1, 0]]), torch.tensor([[True, False]]))
FLOW = rectified_flow()
SIZES = DiTConfig(image_size=8, patch=4, width=32, depth=2, heads=2, vocabulary=30)


def teacher(prediction: str = "velocity") -> Denoiser:
    def network(x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        mu = MU_NULL + (MU_COND - MU_NULL) * (text.mask.sum(1) > 1).double()
        return Gaussian(mu, S).estimate(FLOW, prediction, x_t, t)

    return Denoiser(network, FLOW, prediction)


class ExactStudent(nn.Module):
    """The average velocity of the guided flow, (x_t - x_r) / (t - r), and `bias`."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))

    def forward(self, x_t: Tensor, t: Tensor, text: TextTokens, r: Tensor | None = None) -> Tensor:
        r = torch.zeros_like(t) if r is None else r
        spread = [torch.sqrt((1 - at) ** 2 * S**2 + at**2) for at in (t, r)]
        x_r = over((1 - r), x_t) * GUIDED.mu + over(spread[1] / spread[0], x_t) * (
            x_t - over(1 - t, x_t) * GUIDED.mu
        )
        same = over(t == r, x_t)
        u = (x_t - x_r) / torch.where(same, 1.0, over(t - r, x_t))
        return torch.where(same, GUIDED.estimate(FLOW, "velocity", x_t, t), u) + self.bias


def batch(count: int = 64) -> dict:
    x_0 = GUIDED.mu + S * torch.randn(
        count, 1, 4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    ids = torch.tensor([[1, 2, 2]]).expand(count, -1)
    return named({"x_0": x_0, "text": ids, "mask": torch.ones(count, 3, dtype=torch.bool)})


def loss(student: nn.Module, **settings) -> Tensor:
    samples = batch()
    config = ConsistencyConfig(**{"method": "mean_flow", "adaptive_power": 0.0, **settings})
    return mean_flow_loss(config, teacher(), NULL)(student, samples, context(samples)).loss


def trained(sizes: DiTConfig = SIZES, std: float = 0.2) -> DiT:
    torch.manual_seed(0)
    network = DiT(sizes)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=std)
    return network.eval()


def texts(count: int) -> TextTokens:
    ids = torch.tensor([[1, 7, 9, 0]]).repeat(count, 1)
    return TextTokens(ids, ids > 0)


def test_the_known_average_velocity_is_a_fixed_point_and_no_other():
    """Every term is exact, so nothing but rounding is left; a bias costs its square in all 16 dimensions."""
    for same_times in (0.0, 0.5):
        assert loss(ExactStudent(), same_times=same_times).item() < 1e-20
        assert loss(ExactStudent(0.1), same_times=same_times).item() == pytest.approx(0.16, rel=1e-8)
    assert loss(ExactStudent(0.1), adaptive_power=1.0).item() == pytest.approx(0.16 / 0.161, rel=1e-6)
    assert loss(ExactStudent(), guidance=1.0).item() > 1e-3  # the flow of another guidance


def test_the_gradient_leads_back_to_it_and_does_not_go_through_the_target():
    for bias in (-0.1, 0.1):
        student = ExactStudent(bias)
        loss(student).backward()
        assert student.bias.grad.item() == pytest.approx(16 * 2 * bias, rel=1e-8)


@torch.no_grad()
def test_the_known_average_velocity_samples_the_flow_s_end_in_any_number_of_steps():
    noise = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    end, student = GUIDED.end(FLOW, noise, torch.ones(3, dtype=torch.float64)), ExactStudent()
    denoiser = Denoiser(student, FLOW, "velocity")
    for times in ([1.0, 0.0], [1.0, 0.3, 0.0], [1.0, 0.9, 0.5, 0.1, 0.0]):
        images = mean_flow(denoiser, student, texts(3), noise, torch.tensor(times, dtype=torch.float64))
        torch.testing.assert_close(images, end, rtol=1e-12, atol=1e-12)
    alone = conditioned(denoiser, texts(3)).consistency(noise, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(alone, end, rtol=1e-12, atol=1e-12)  # without r: to the data


@pytest.mark.parametrize("prediction", ["x_0", "velocity", "preconditioned"])
def test_an_untrained_second_time_leaves_the_teacher_whatever_r_is(prediction):
    network = trained()
    torch.manual_seed(1)
    student = DiT(SIZES.model_copy(update={"second_time": True}))
    student.load_state_dict(student.state_dict() | network.state_dict())
    x_t, t = torch.randn(3, 3, 8, 8), torch.tensor([0.02, 0.5, 1.0])
    before, after = (make_denoiser(n, DiffusionConfig(prediction=prediction)) for n in (network, student))
    for r in (torch.zeros(3), t / 2, t):
        denoiser = toward(after, student, r)
        assert torch.equal(denoiser.velocity(x_t, t, texts(3)), before.velocity(x_t, t, texts(3)))
    nn.init.normal_(student.second_time_in[-1].weight)
    assert not torch.equal(student(x_t, t, texts(3), t), student(x_t, t, texts(3), t / 2))


@pytest.mark.parametrize(("side", "patch"), [(8, 4), (34, 2)])  # attention written out, and fused
@pytest.mark.parametrize("prediction", ["x_0", "preconditioned"])
def test_the_slope_is_that_of_finite_differences(side, patch, prediction):
    """Along a path, in float64, through the whole network and the conversion of what it predicts."""
    assert ((side // patch) ** 2 > FEW_TOKENS) == (side == 34)
    sizes = SIZES.model_copy(update={"image_size": side, "patch": patch, "second_time": True})
    network = trained(sizes, std=0.1).double()
    denoiser, text = make_denoiser(network, DiffusionConfig(prediction=prediction)), texts(2)
    generator = torch.Generator().manual_seed(3)
    x_t, v = (torch.randn(2, 3, side, side, generator=generator, dtype=torch.float64) for _ in range(2))
    t, r = torch.tensor([[0.6, 0.9], [0.2, 0.9]], dtype=torch.float64)

    @torch.no_grad()
    def u(step: float) -> Tensor:
        return toward(denoiser, network, r).velocity(x_t + step * v, t + step, text)

    found, h = average_velocity(denoiser, network, text, x_t, t, r, v), 1e-5
    torch.testing.assert_close(found.u, u(0), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.slope, (u(h) - u(-h)) / (2 * h), rtol=1e-5, atol=1e-6)
    assert not found.slope.requires_grad and found.slope.abs().max() > 0.1


def test_every_weight_learns_and_the_teacher_none_also_in_training_s_precision():
    network, ids = trained(), torch.tensor([[1, 7, 9]]).expand(4, -1)
    x_0 = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    samples = named({"x_0": x_0, "text": ids, "mask": torch.ones(4, 3, dtype=torch.bool)})
    objective = mean_flow_loss(
        ConsistencyConfig(method="mean_flow"),
        make_denoiser(network, DiffusionConfig()),
        NULL,
    )
    losses = {}
    for rounded in (False, True):
        student = trained(SIZES.model_copy(update={"second_time": True}))
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            losses[rounded] = objective(student, samples, context(samples)).loss
        losses[rounded].backward()
        assert not [name for name, p in student.named_parameters() if p.grad is None or not p.grad.any()]
    assert losses[True].item() == pytest.approx(losses[False].item(), rel=0.05)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_times_are_ordered_and_a_share_of_them_the_same():
    samples = named({"x_0": torch.zeros(4000)})
    span = draw_span(ConsistencyConfig(method="mean_flow", same_times=0.25), context(samples))
    assert (span.r <= span.t).all() and (span.r > 0).all() and (span.t <= 1).all()
    assert (span.r == span.t).float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_a_teacher_that_knows_nothing_at_pure_noise_is_refused():
    with pytest.raises(InputError, match="predicts eps knows no image at pure noise"):
        mean_flow_loss(ConsistencyConfig(method="mean_flow"), copy.copy(teacher("eps")), NULL)
