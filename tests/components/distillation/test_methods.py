"""What the methods learn, in float64 against points and ends of paths that are known in closed form."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.diffusion.config import DiTConfig
from components.diffusion.denoiser import Denoiser
from components.diffusion.process import over
from components.distillation.config import ConsistencyConfig
from components.distillation.consistency import consistency_loss
from components.distillation.curriculum import draw_times
from components.distillation.metrics import DIFFERENCES
from tests.gaussian_data import PROCESSES, Gaussian
from tests.loss_context import context, named

S, MU_NULL, MU_COND, GUIDANCE = 0.5, 0.2, 0.4, 3.0
GUIDED = MU_NULL + GUIDANCE * (MU_COND - MU_NULL)
NULL = TextTokens(torch.tensor([[1, 0]]), torch.tensor([[True, False]]))
EXACT = {"rtol": 1e-10, "atol": 1e-10}


class Student(nn.Module):
    """A velocity that is wrong everywhere, and keeps what it was asked for."""

    def __init__(self, slope: float = 0.7) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        self.seen.append((x_t.detach(), t))
        return self.slope * x_t + over(t, x_t)


def teacher(process: str) -> Denoiser:
    def network(x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        mu = MU_NULL + (MU_COND - MU_NULL) * (text.mask.sum(1) > 1).double()
        return Gaussian(mu, S).estimate(PROCESSES[process], "velocity", x_t, t)

    return Denoiser(network, PROCESSES[process], "velocity")


def batch(count: int = 16, mu: float = GUIDED) -> dict:
    generator = torch.Generator().manual_seed(5)
    x_0 = mu + S * torch.randn(count, 1, 4, 4, generator=generator, dtype=torch.float64)
    ids = torch.tensor([[1, 2, 2]]).expand(count, -1)
    return named({"x_0": x_0, "text": ids, "mask": torch.ones(count, 3, dtype=torch.bool)})


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(
    ("method", "solver", "metric"),
    [("cd", "euler", "pseudo_huber"), ("cd", "heun", "l1"), ("ct", "euler", "l2")],
)
def test_the_loss_is_that_of_the_next_point_of_the_path(process, method, solver, metric):
    """x_s and the loss written out: a solver's step along the guided velocity, or the sample's own point."""
    config = ConsistencyConfig(method=method, solver=solver, metric=metric)
    student, samples, path = Student(), batch(), PROCESSES[process]
    loss = consistency_loss(config, teacher(process), NULL)(student, samples, context(samples)).loss

    times, noise = draw_times(config, context(samples)), context(samples).noise
    t, s = times.t.double(), times.s.double()
    eps = noise.normal("eps", (1, 4, 4)).double()
    x_t = path.sample(samples["x_0"], eps, t).x_t
    guided, step = Gaussian(GUIDED, S), over(s - t, x_t)
    velocity = guided.estimate(path, "velocity", x_t, t)
    ahead = guided.estimate(path, "velocity", x_t + step * velocity, s)
    x_s = {
        ("cd", "euler"): x_t + step * velocity,
        ("cd", "heun"): x_t + step * (velocity + ahead) / 2,
        ("ct", "euler"): path.sample(samples["x_0"], eps, s).x_t,
    }[method, solver]

    (seen_s, at_s), (seen_t, at_t) = student.seen
    assert torch.equal(at_s, s) and torch.equal(at_t, t)
    torch.testing.assert_close(seen_s, x_s, **EXACT)
    torch.testing.assert_close(seen_t, x_t, **EXACT)

    def end(x: Tensor, at: Tensor) -> Tensor:
        return path.x_0_from_velocity(x, 0.7 * x + over(at, x), at)

    distance = DIFFERENCES[metric]((end(x_t, t) - end(x_s, s)).flatten(1))
    torch.testing.assert_close(loss.detach(), (distance / t).mean(), **EXACT)


def test_on_average_training_s_target_is_the_unguided_step_of_a_perfect_teacher():
    """Song 2023, Theorem 2: what is between them has no mean and nothing to do with x_t."""
    samples, process = batch(4096, MU_COND), PROCESSES["rectified_flow"]
    exact = Gaussian(MU_COND, S)

    def target(**settings) -> tuple[Tensor, Tensor]:
        student = Student()
        config = ConsistencyConfig(**settings)
        consistency_loss(config, teacher("rectified_flow"), NULL)(student, samples, context(samples))
        (x_s, s), (x_t, _) = student.seen
        return exact.end(process, x_s, s), x_t

    trained, x_t = target(method="ct")

    def scores(other: Tensor) -> list[float]:
        """How many standard errors the mean difference is from zero, plain and weighted with x_t."""
        products = [(trained - other) * weight for weight in (torch.ones_like(x_t), x_t - x_t.mean())]
        return [float(p.mean() / (p.std() / p.numel() ** 0.5)) for p in products]

    assert max(map(abs, scores(target(method="cd", guidance=1.0)[0]))) < 4
    assert max(map(abs, scores(target(method="cd")[0]))) > 10  # a guided step is another


def test_consistency_training_asks_no_teacher():
    def refuse(*_: object) -> Tensor:
        raise AssertionError("the teacher was asked")

    samples, student = batch(), Student()
    silent = replace(teacher("rectified_flow"), network=refuse)
    loss = consistency_loss(ConsistencyConfig(method="ct"), silent, NULL)
    loss(student, samples, context(samples)).loss.backward()
    assert student.slope.grad != 0


def test_an_ema_target_is_the_average_s_estimate():
    samples, student, average = batch(), Student(), Student(slope=-0.3)
    loss = consistency_loss(ConsistencyConfig(target="ema", metric="l2"), teacher("rectified_flow"), NULL)
    value = loss(student, samples, replace(context(samples), target=average)).loss
    ((x_s, s),), ((x_t, t),) = average.seen, student.seen
    ends = (x - over(at, x) * (slope * x + over(at, x)) for x, at, slope in ((x_t, t, 0.7), (x_s, s, -0.3)))
    expected = ((next(ends) - next(ends)).square().flatten(1).mean(1) / t).mean()
    torch.testing.assert_close(value.detach(), expected, **EXACT)


def test_without_a_teacher_the_default_guidance_is_one():
    assert ConsistencyConfig().guidance == ConsistencyConfig(method="mean_flow").guidance == 3
    assert ConsistencyConfig(method="ct").guidance == 1
    saved = ConsistencyConfig(method="ct").model_dump()
    assert ConsistencyConfig.model_validate(saved).guidance == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"method": "ct", "guidance": 2.0},
            "ct has no teacher whose guidance it could absorb",
        ),
        ({"method": "ct", "solver": "heun"}, "ct has no use for consistency.solver; leave it out"),
        ({"method": "mean_flow", "intervals": 20}, "mean_flow has no use for consistency.intervals"),
        ({"method": "mean_flow", "target": "ema"}, "mean_flow has no use for consistency.target"),
        (
            {"method": "mean_flow", "metric": "l1"},
            "mean_flow has no use for consistency.metric",
        ),
        ({"same_times": 0.5}, "cd has no use for consistency.same_times"),
        (
            {"metric": "perceptual"},
            "the folder or id of a captioner .*need each other",
        ),
        ({"perceptual": "folder"}, "need each other; set both or neither"),
        ({"curriculum": "doubling", "most_intervals": 8}, "most_intervals 8 is below intervals 12"),
        ({"method": "cm"}, "'cd', 'ct' or 'mean_flow'"),
    ],
)
def test_options_that_contradict_each_other_are_one_line(settings, message):
    with pytest.raises(ValidationError, match=message):
        ConsistencyConfig(**settings)


def test_a_config_that_uses_no_new_option_is_dumped_as_before_there_were_any():
    default = {"intervals": 12, "shift": 1.5, "solver": "euler", "guidance": 3.0}
    assert ConsistencyConfig().model_dump(mode="json") == default
    used = ConsistencyConfig(method="ct", target="ema").model_dump(mode="json")
    assert used == {**default, "guidance": 1.0, "method": "ct", "target": "ema"}
    assert "second_time" not in DiTConfig().model_dump()
