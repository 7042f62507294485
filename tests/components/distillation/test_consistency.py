"""Consistency distillation against flows whose end is known in closed form.

A guided teacher of two Gaussians of one s is the flow of a third, with mu = mu_null + w (mu_cond - mu_null).
"""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig
from components.diffusion.denoiser import Denoiser, make_denoiser
from components.diffusion.dit import DiT, DiTConfig
from components.diffusion.process import Process, over, rectified_flow
from components.distillation.config import ConsistencyConfig
from components.distillation.consistency import consistency_loss
from components.distillation.metrics import pseudo_huber
from components.errors import InputError
from tests.gaussian_data import PROCESSES, QUANTITIES, Gaussian
from tests.loss_context import context, named

S, MU_NULL, MU_COND, GUIDANCE = 0.5, 0.2, 0.4, 3.0
MU = MU_NULL + GUIDANCE * (MU_COND - MU_NULL)
START, TOKEN = 1, 2
NULL = TextTokens(torch.tensor([[START, 0]]), torch.tensor([[True, False]]))
FLOW = rectified_flow()


def gaussian_teacher(process: Process = FLOW, prediction: str = "velocity") -> Denoiser:
    """The best denoiser of N(MU_COND, S²) with a caption and of N(MU_NULL, S²) without."""

    def network(x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        mu = torch.where(text.mask.sum(1) > 1, MU_COND, MU_NULL)
        return Gaussian(mu, S).estimate(process, prediction, x_t, t)

    return Denoiser(network, process, prediction)


class ExactStudent(nn.Module):
    """Predicts what means the end of the guided path, `bias` beside it."""

    def __init__(self, bias: float = 0.0, process: Process = FLOW, prediction: str = "velocity") -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))
        self.process, self.prediction = process, prediction

    def forward(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        end = Gaussian(MU, S).end(self.process, x_t, t) + self.bias
        return self.process.convert(end, x_t, t, source="x_0", target=self.prediction)


def batch(count: int = 512) -> dict:
    """Data of the guided flow, so that its paths are the teacher's."""
    x_0 = MU + S * torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    ids = torch.tensor([[START, TOKEN, TOKEN]]).expand(count, -1)
    return named({"x_0": x_0, "text": ids, "mask": torch.ones(count, 3, dtype=torch.bool)})


def value(
    student: nn.Module,
    intervals: int = 16,
    guidance: float = GUIDANCE,
    count: int = 512,
    teacher: Denoiser | None = None,
    seed: int = 0,
    **settings,
) -> Tensor:
    settings = {"solver": "heun", "shift": 1.0} | settings
    config = ConsistencyConfig(intervals=intervals, guidance=guidance, **settings)
    samples = batch(count)
    loss = consistency_loss(config, teacher or gaussian_teacher(), NULL)
    return loss(student, samples, context(samples, seed)).loss


def trained_network(std: float = 0.2) -> DiT:
    """One none of whose weights is zero."""
    torch.manual_seed(0)
    model = DiT(DiTConfig(image_size=8, patch=4, width=32, depth=1, heads=2, vocabulary=8))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model


def trained_teacher(std: float = 0.2) -> Denoiser:
    return make_denoiser(trained_network(std), DiffusionConfig())


def images(count: int) -> dict:
    ids = torch.tensor([[START, TOKEN, 5]]).expand(count, -1)
    x_0 = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return named({"x_0": x_0, "text": ids, "mask": torch.ones(count, 3, dtype=torch.bool)})


def test_the_guided_teacher_s_own_map_is_a_fixed_point():
    """What is left is the error of one Heun step, which falls with its length."""
    losses = {n: value(ExactStudent(), n).item() for n in (4, 8, 16)}
    assert losses[8] < losses[4] / 4 and losses[16] < losses[8] / 4
    assert losses[16] < 1e-3
    for bias in (-0.1, 0.1):  # f + bias is not constant: it must be x at the data
        assert value(ExactStudent(bias)).item() > 100 * losses[16]
    assert value(ExactStudent(), guidance=1.0).item() > 100 * losses[16]  # the end of another path


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("prediction", QUANTITIES)
def test_it_is_a_fixed_point_of_every_process_and_prediction(name, prediction):
    process = PROCESSES[name]
    teacher = gaussian_teacher(process, prediction)

    def loss(bias: float, intervals: int) -> float:
        student = ExactStudent(bias, process, prediction)
        return value(student, intervals, teacher=teacher, solver="euler").item()

    if (name, prediction) == ("rectified_flow", "eps"):
        with pytest.raises(InputError, match="predicts eps knows no image at pure noise; distill one"):
            loss(0.0, 4)
        return
    assert loss(0.0, 16) < loss(0.0, 8) / 1.5 < loss(0.0, 4) / 1.5**2
    assert loss(0.0, 16) < loss(0.5, 16) / 3


def test_euler_is_of_first_order_and_ends_on_the_same_path():
    losses = {n: value(ExactStudent(), n, solver="euler").item() for n in (4, 8, 16)}
    for n in (4, 8):  # a step's error falls fourfold, and the mean of 1/t rises a little
        assert losses[n] / 4 < losses[2 * n] < losses[n] / 2.5
    assert value(ExactStudent(0.5), solver="euler").item() > 3 * losses[16]


def test_shifted_times_are_finer_near_the_noise():
    times: list[Tensor] = []

    class Recorded(ExactStudent):
        def forward(self, x_t, t, text):
            times.append(t)
            return super().forward(x_t, t, text)

    value(Recorded(), 3, solver="euler", shift=2.0)
    assert torch.cat(times).unique().tolist() == pytest.approx([0, 2 / 4, 4 / 5, 1])  # 2 u / (1 + u)


def test_a_wrong_end_costs_its_distance():
    """f + b misses its target in the last interval alone: a share 1/N of the times, weighted 1/t = N."""
    b, dimensions = 5.0, 16
    expected = b * dimensions**0.5
    assert value(ExactStudent(b), 4, count=4096).item() == pytest.approx(expected, rel=0.08)


def test_the_gradient_leads_back_to_the_fixed_point():
    for bias in (-0.1, 0.1):
        student = ExactStudent(bias)
        value(student).backward()
        assert student.bias.grad * bias > 0


def test_the_target_is_not_trained_and_neither_is_the_teacher():
    """The student is evaluated twice: without gradients at s, one interval nearer to the data, and at t."""
    evaluations: list[tuple[Tensor, bool]] = []

    class Recorded(ExactStudent):
        def forward(self, x_t, t, text):
            evaluations.append((t, torch.is_grad_enabled()))
            return super().forward(x_t, t, text)

    value(Recorded(), intervals=2)
    (s, learns_at_s), (t, learns_at_t) = evaluations
    assert (learns_at_s, learns_at_t) == (False, True)
    assert set(t.tolist()) == {0.5, 1.0} and torch.equal(s, t - 0.5)

    teacher, student, samples = trained_teacher(), trained_network(), images(2)
    consistency_loss(ConsistencyConfig(), teacher, NULL)(student, samples, context(samples)).loss.backward()
    assert all(parameter.grad is None for parameter in teacher.network.parameters())
    assert any(parameter.grad is not None for parameter in student.parameters())


def test_in_training_s_precision_every_weight_still_learns():
    """Autocast must not keep the target's rounded weights, which have no gradient, for the online pass."""
    samples, learning = images(4), []
    for rounded in (False, True):
        student = trained_network()
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            loss = consistency_loss(ConsistencyConfig(), trained_teacher(), NULL)
            losses = loss(student, samples, context(samples))
        assert losses.loss.dtype == torch.float32
        losses.loss.backward()
        with_gradient = {
            name for name, p in student.named_parameters() if p.grad is not None and p.grad.any()
        }
        learning.append(with_gradient)
    assert learning[0] == learning[1]
    assert {name for name, p in student.named_parameters() if p.ndim == 2} <= learning[1]


def test_the_default_loss_is_as_it_was_to_the_bit():
    """Written when the teacher was a rectified flow that predicts x_0, its step Euler's, guidance 3."""
    teacher, student, samples = trained_teacher(0.15), trained_network(), images(6)
    default = consistency_loss(ConsistencyConfig(), teacher, NULL)(student, samples, context(samples)).loss

    text = TextTokens(samples["text"], samples["mask"])
    both, noise, x_0 = text.joined(NULL.repeat(6, 3)), context(samples).noise, samples["x_0"]
    n = noise.integers("interval", 1, 13)
    t, s = (1.5 * (k / 12) / (1 + 0.5 * (k / 12)) for k in (n, n - 1))
    x_t = over(1 - t, x_0) * x_0 + over(t, x_0) * noise.normal("eps", x_0.shape[1:])

    def velocity(network: nn.Module, x: Tensor, at: Tensor, of: TextTokens) -> Tensor:
        return (x - network(x, at, of)) / over(at.clamp(min=0.05), x)

    def end(x: Tensor, at: Tensor) -> Tensor:
        return x - over(at, x) * velocity(student, x, at, text)

    with torch.no_grad():
        guided = velocity(teacher.network, torch.cat([x_t, x_t]), torch.cat([t, t]), both)
        conditional, null = guided.chunk(2)
        x_s = x_t + over(s - t, x_t) * (null + 3.0 * (conditional - null))
        target = end(x_s, s)
    assert torch.equal(default, (pseudo_huber((end(x_t, t) - target).flatten(1)) / t).mean())


def test_the_loss_is_a_function_of_the_noise_s_seed():
    student = ExactStudent(0.1)
    first, again, other = (value(student, count=32, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_pseudo_huber_is_a_parabola_near_zero_and_a_norm_far_out():
    direction = torch.randn(2, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    direction /= direction.norm(dim=1, keepdim=True)
    c = 0.00054 * 300**0.5
    near, far = 1e-3 * c, 1e3 * c
    parabola = torch.full((2,), near**2 / (2 * c), dtype=torch.float64)
    torch.testing.assert_close(pseudo_huber(direction * near), parabola, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        pseudo_huber(direction * far), torch.full_like(parabola, far - c), rtol=1e-5, atol=0
    )
    zero = torch.zeros(1, 300, requires_grad=True)
    pseudo_huber(zero).sum().backward()
    assert torch.equal(zero.grad, torch.zeros(1, 300))


@pytest.mark.parametrize("wrong", [{"intervals": 1}, {"guidance": 0.5}, {"guidance": float("inf")}, {"n": 3}])
def test_a_bad_value_is_refused(wrong):
    with pytest.raises(ValidationError):
        ConsistencyConfig(**wrong)
