"""Consistency distillation against flows whose end is known in closed form.

For data N(mu, s²) the flow's path through (x, t) ends at f = mu + s (x - (1-t) mu) / sqrt((1-t)² s² + t²).
A guided teacher of two such data, of one s, is such a flow again, with mu = mu_null + w (mu_cond - mu_null).
"""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.diffusion.dit import DiT, DiTConfig
from components.diffusion.process import over, velocity_of_x_hat
from components.distillation.consistency import (
    ConsistencyConfig,
    consistency_loss,
    consistency_map,
    pseudo_huber,
)

S, MU_NULL, MU_COND, GUIDANCE = 0.5, 0.2, 0.4, 3.0
MU = MU_NULL + GUIDANCE * (MU_COND - MU_NULL)
START, WORD = 1, 2
NULL = TextTokens(torch.tensor([[START, 0]]), torch.tensor([[True, False]]))


class GaussianTeacher(nn.Module):
    """The exact velocity of N(MU_COND, S²) with a caption and of N(MU_NULL, S²) without."""

    def velocity(self, x: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        mu, t = over(torch.where(text.mask.sum(1) > 1, MU_COND, MU_NULL), x), over(t, x)
        variance = (1 - t) ** 2 * S**2 + t**2
        return -mu + (t - (1 - t) * S**2) / variance * (x - (1 - t) * mu)


class ExactStudent(nn.Module):
    """Predicts the end of the guided path, `bias` beside it."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, x: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        t = over(t, x)
        spread = torch.sqrt((1 - t) ** 2 * S**2 + t**2)
        return MU + S * (x - (1 - t) * MU) / spread + self.bias


def batch(count: int = 512) -> dict[str, Tensor]:
    """Data of the guided flow, so that its paths are the teacher's."""
    x_0 = MU + S * torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    ids = torch.tensor([[START, WORD, WORD]]).expand(count, -1)
    return {"x_0": x_0, "text": ids, "mask": torch.ones(count, 3, dtype=torch.bool)}


def value(
    student: nn.Module, intervals: int = 16, guidance: float = GUIDANCE, count: int = 512, **settings
) -> Tensor:
    settings = {"solver": "heun", "shift": 1.0} | settings
    config = ConsistencyConfig(intervals=intervals, guidance=guidance, **settings)
    loss = consistency_loss(config, GaussianTeacher(), NULL)
    return loss(student, batch(count), torch.Generator().manual_seed(0)).loss


def awake() -> DiT:
    torch.manual_seed(0)
    model = DiT(DiTConfig(image_size=8, patch=4, width=32, depth=1, heads=2, vocabulary=8))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def texts(count: int) -> TextTokens:
    ids = torch.tensor([[START, WORD, 5]]).expand(count, -1)
    return TextTokens(ids, torch.ones(count, 3, dtype=torch.bool))


@torch.no_grad()
def test_at_the_data_the_map_is_the_identity_whatever_the_network():
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(consistency_map(awake(), x, torch.zeros(4), texts(4)), x)


@torch.no_grad()
def test_elsewhere_the_map_is_the_network_s_own_image():
    model, x, t = awake(), torch.randn(4, 3, 8, 8), torch.tensor([0.05, 0.3, 0.9, 1.0])
    torch.testing.assert_close(consistency_map(model, x, t, texts(4)), model(x, t, texts(4)))
    t = torch.full((4,), 0.02)  # nearer to the data than the network's velocity can tell
    expected = x - 0.02 * velocity_of_x_hat(x, model(x, t, texts(4)), t)
    torch.testing.assert_close(consistency_map(model, x, t, texts(4)), expected)


def test_the_guided_teacher_s_own_map_is_a_fixed_point():
    """What is left is the error of one Heun step, which falls with its length."""
    losses = {n: value(ExactStudent(), n).item() for n in (4, 8, 16)}
    assert losses[8] < losses[4] / 4 and losses[16] < losses[8] / 4
    assert losses[16] < 1e-3
    for bias in (-0.1, 0.1):  # f + bias is not constant: it must be x at the data
        assert value(ExactStudent(bias)).item() > 100 * losses[16]
    assert value(ExactStudent(), guidance=1.0).item() > 100 * losses[16]  # the end of another path


def test_euler_is_of_first_order_and_ends_on_the_same_path():
    losses = {n: value(ExactStudent(), n, solver="euler").item() for n in (4, 8, 16)}
    for n in (4, 8):  # a step's error falls fourfold, and the mean of 1/t rises a little
        assert losses[n] / 4 < losses[2 * n] < losses[n] / 2.5
    assert value(ExactStudent(0.5), solver="euler").item() > 3 * losses[16]


def test_shifted_times_are_finer_near_the_noise():
    asked: list[Tensor] = []

    class Asked(ExactStudent):
        def forward(self, x, t, text):
            asked.append(t)
            return super().forward(x, t, text)

    value(Asked(), 3, solver="euler", shift=2.0)
    assert torch.cat(asked).unique().tolist() == pytest.approx([0, 2 / 4, 4 / 5, 1])  # 2 u / (1 + u)


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
    """The student is asked twice: without gradients at s, one interval nearer to the data, and at t."""
    asked: list[tuple[Tensor, bool]] = []

    class Asked(ExactStudent):
        def forward(self, x, t, text):
            asked.append((t, torch.is_grad_enabled()))
            return super().forward(x, t, text)

    value(Asked(), intervals=2)
    (s, learns_at_s), (t, learns_at_t) = asked
    assert (learns_at_s, learns_at_t) == (False, True)
    assert set(t.tolist()) == {0.5, 1.0} and torch.equal(s, t - 0.5)

    teacher, pupil = awake(), awake()
    given = {"x_0": torch.randn(2, 3, 8, 8), "text": texts(2).values, "mask": texts(2).mask}
    generator = torch.Generator().manual_seed(0)
    consistency_loss(ConsistencyConfig(), teacher, NULL)(pupil, given, generator).loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(parameter.grad is not None for parameter in pupil.parameters())


def test_in_training_s_precision_every_weight_still_learns():
    """Autocast must not keep the target's rounded weights, which have no gradient, for the online pass."""
    given = {"x_0": torch.randn(4, 3, 8, 8), "text": texts(4).values, "mask": texts(4).mask}
    learning = []
    for rounded in (False, True):
        pupil = awake()
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            losses = consistency_loss(ConsistencyConfig(), awake(), NULL)(pupil, given, torch.Generator())
        assert losses.loss.dtype == torch.float32
        losses.loss.backward()
        learning.append({name for name, p in pupil.named_parameters() if p.grad is not None and p.grad.any()})
    assert learning[0] == learning[1]
    assert {name for name, p in pupil.named_parameters() if p.ndim == 2} <= learning[1]


def test_the_loss_is_a_function_of_the_generator():
    given, student = batch(32), ExactStudent(0.1)
    loss = consistency_loss(ConsistencyConfig(), GaussianTeacher(), NULL)
    first, again, other = (loss(student, given, torch.Generator().manual_seed(s)).loss for s in (1, 1, 2))
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
