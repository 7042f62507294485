"""Distribution matching against Gaussians and a mixture, whose best denoisers are known in closed form."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.diffusion.process import over, rectified_flow
from components.distillation.config import ConsistencyConfig
from components.distillation.matching import TIMES, MatchedStudent, matched_loss
from components.training.loss import Batch, LossContext, Losses
from tests.components.distillation.test_consistency import MU, NULL, S, batch, gaussian_teacher
from tests.gaussian_data import Gaussian
from tests.loss_context import context
from tests.mixture_data import Mixture

FLOW = rectified_flow()
UNGUIDED = {"guidance": 1.0}


class Drawing(nn.Module):
    """Draws N(mu, s²) in one step from noise."""

    def __init__(self, mu: float, s: float) -> None:
        super().__init__()
        self.mu, self.log_s = nn.Parameter(torch.tensor(mu)), nn.Parameter(torch.tensor(s).log())

    def forward(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        return FLOW.convert(self.mu + self.log_s.exp() * x_t, x_t, t, source="x_0", target="velocity")


class Estimating(Drawing):
    """The best denoiser of N(mu, s²)."""

    def forward(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        return Gaussian(self.mu.expand(len(x_t)), self.log_s.exp()).estimate(FLOW, "velocity", x_t, t)


def no_consistency(model: nn.Module, samples: Batch, step: LossContext) -> Losses:
    return Losses(torch.zeros(()), {"of_consistency": torch.ones(())})


def losses(model: MatchedStudent, count: int = 256, seed: int = 0, teacher=None, **matching) -> Losses:
    samples = batch(count)
    loss = matched_loss(
        no_consistency, ConsistencyConfig(matching=matching), teacher or gaussian_teacher(), NULL
    )
    return loss(model, samples, context(samples, seed))


def trained(model: MatchedStudent, steps: int, **settings) -> MatchedStudent:
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        losses(model, 128, step, **settings).loss.backward()
        optimizer.step()
    return model


def test_the_student_comes_to_draw_what_the_guided_teacher_draws():
    """From elsewhere, with a fake that has to learn what it draws."""
    model = trained(MatchedStudent(Drawing(-0.5, 1.2), Estimating(0.0, 1.0)), 500)
    for part in (model.student, model.fake):
        assert part.mu.item() == pytest.approx(MU, abs=0.03)
        assert part.log_s.exp().item() == pytest.approx(S, abs=0.03)
    unguided = trained(MatchedStudent(Drawing(-0.5, 1.2), Estimating(0.0, 1.0)), 500, **UNGUIDED)
    assert unguided.student.mu.item() == pytest.approx(0.4, abs=0.03)


def test_the_slope_is_that_of_the_two_estimates():
    """Against the formula on the student's own drawings, noise and times."""
    student, weight, count = Drawing(0.3, 0.7), 2.0, 64
    model = MatchedStudent(student, Estimating(0.3, 0.7))
    losses(model, count, weight=weight).loss.backward()
    noise = context(batch(count)).noise
    start, eps = (noise.normal(name, (1, 4, 4)) for name in ("start", "matching_eps"))
    low, high = TIMES
    t = low + (high - low) * noise.uniform("matching_time")
    t = 1.5 * t / (1 + 0.5 * t)
    y = 0.3 + 0.7 * start
    y_t = over(1 - t, y) * y + over(t, y) * eps
    teacher = Gaussian(MU, S).estimate(FLOW, "x_0", y_t, t)
    fake = Gaussian(0.3, 0.7).estimate(FLOW, "x_0", y_t, t)
    slope = weight * (fake - teacher) / over((y - teacher).flatten(1).norm(dim=1), y) / count
    assert student.mu.grad.item() == pytest.approx(slope.sum().item(), rel=1e-4)
    assert student.log_s.grad.item() == pytest.approx((slope * 0.7 * start).sum().item(), rel=1e-4)


def test_what_the_teacher_draws_to_the_bit_is_left_where_it_is():
    """Its distance from the teacher's estimate is 0, and so is the slope where the fake knows it, too."""
    student = Drawing(0.0, 0.0)
    found = losses(
        MatchedStudent(student, Estimating(0.0, 0.0)), teacher=Gaussian(0.0, 0.0).denoiser(FLOW, "velocity")
    )
    found.loss.backward()
    assert (found.metrics["slope"].item(), student.mu.grad.item()) == (0.0, 0.0)


def test_the_fake_learns_only_what_is_drawn_and_the_student_only_from_the_slope():
    """Whatever the weight and the teacher, the fake's gradient is the same; at its own data it has none."""
    gradients = []
    for weight, teacher in ((1.0, None), (7.0, Mixture().denoiser(FLOW, "velocity"))):
        model = MatchedStudent(Drawing(0.3, 0.7), Estimating(0.1, 0.9))
        losses(model, teacher=teacher, weight=weight, guidance=1.0).loss.backward()
        gradients.append((model.fake.mu.grad.item(), model.student.mu.grad.item()))
    assert gradients[0][0] == gradients[1][0] != 0 and gradients[0][1] != gradients[1][1]
    exact = MatchedStudent(Drawing(0.3, 0.7), Estimating(0.3, 0.7))
    losses(exact, 4096).loss.backward()
    assert abs(exact.fake.mu.grad.item()) < abs(gradients[0][0]) / 10


def test_what_is_drawn_between_two_modes_is_moved_to_them():
    """They begin as what the mean of both is: near zero."""
    mixture = Mixture(weights=(0.5, 0.5), means=(-0.8, 0.8), s=0.1)

    class Wide(nn.Module):
        """Draws by an odd function of each pixel of the noise, at first near zero."""

        def __init__(self) -> None:
            super().__init__()
            self.slope, self.height = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.3))

        def forward(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
            drawn = self.height * torch.tanh(self.slope * x_t)
            return FLOW.convert(drawn, x_t, t, source="x_0", target="velocity")

    class TwoParts(nn.Module):
        """The best denoiser of an even mixture about zero, whose means and deviation are learned."""

        def __init__(self) -> None:
            super().__init__()
            self.mean, self.log_s = nn.Parameter(torch.tensor(0.2)), nn.Parameter(torch.tensor(0.3).log())

        def forward(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
            a, sigma, s = over(1 - t, x_t), over(t, x_t), self.log_s.exp()
            variance = a**2 * s**2 + sigma**2
            mu = self.mean * torch.tanh(a * self.mean * x_t / variance)  # of a part, by its likelihood
            x_0 = a * s**2 * x_t / variance + mu * sigma**2 / variance
            return FLOW.convert(x_0, x_t, t, source="x_0", target="velocity")

    model = trained(
        MatchedStudent(Wide(), TwoParts()), 600, teacher=mixture.denoiser(FLOW, "velocity"), **UNGUIDED
    )
    noise = torch.randn(1000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    drawn = model.student.height * torch.tanh(model.student.slope * noise)
    assert drawn.abs().mean().item() == pytest.approx(0.8, abs=0.05)
    assert (drawn.abs() < 0.4).float().mean().item() < 0.2  # at first all were


def test_the_loss_is_the_consistency_loss_and_two_more_with_metrics_of_all():
    model = MatchedStudent(Drawing(MU, S), Estimating(MU, S))
    both = losses(model)
    assert both.metrics.keys() == {"of_consistency", "fake", "slope"}
    assert both.metrics["slope"].item() < 1e-3  # drawn as the teacher draws
    assert losses(MatchedStudent(Drawing(0.0, S), Estimating(0.0, S))).metrics["slope"].item() > 0.1


@pytest.mark.parametrize("method", ["ct", "mean_flow"])
def test_only_consistency_distillation_can_be_matched(method):
    message = f"{method} has no use for consistency.matching; set it to null"
    with pytest.raises(ValidationError, match=message):
        ConsistencyConfig(method=method, matching={})


def test_a_config_without_it_is_dumped_as_before():
    assert "matching" not in ConsistencyConfig().model_dump()
