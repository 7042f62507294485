"""The held-out loss by time: against its closed form, the same every time, and on a training's curve."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig
from components.diffusion.process import make_process
from components.training.checkpoints import Checkpoints
from components.training.config import VALIDATION_LOSS, FlowLossConfig, TrainingConfig
from components.training.flow_loss import FlowLoss
from components.training.loop import Trained, train
from components.training.loss import Batch
from components.training.validation import TIME_BINS, Validation, named_values
from tests.gaussian_data import Gaussian
from tests.loss_context import named

NULL = TextTokens(torch.tensor([[1, 0]]), torch.tensor([[True, False]]))
DATA = Gaussian(0.5, 0.4)
CPU = torch.device("cpu")


class Formula(nn.Module):
    """A network that predicts by a formula."""

    def __init__(self, formula) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, text: TextTokens) -> torch.Tensor:
        return self.formula(x_t, t)


def images(count: int, first: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(first)
    x_0 = DATA.mu + DATA.s * torch.randn(count, 1, 2, 2, generator=generator)
    ids = torch.ones(count, 2, dtype=torch.long)
    samples = named({"x_0": x_0, "text": ids, "mask": ids > 0})
    return {**samples, "keys": [f"{first} {key}" for key in samples["keys"]]}


def validation(process: str, batches: list[Batch], every: int = 16) -> Validation:
    diffusion = DiffusionConfig(process=process, prediction=make_process(process).loss_target)
    loss = FlowLoss(FlowLossConfig(caption_dropout=0.9), diffusion, NULL)
    return Validation(loss, lambda: batches, every)


@pytest.mark.parametrize("process", ["rectified_flow", "ddpm"])
def test_the_best_network_s_loss_in_each_bin_is_the_mean_of_its_variance_there(process):
    """Var(target | x_t) of test_flow_loss, averaged over the times of a bin."""
    path = make_process(process)
    best = Formula(lambda x_t, t: DATA.estimate(path, path.loss_target, x_t, t))
    measured = validation(process, [images(8000), images(4000, first=1)])(best, CPU)
    times = torch.linspace(0, 1, 1001)[1:]  # the steps of ddpm's chain
    a, sigma, da, ds = (f(times) for f in (path.alpha, path.sigma, path.alpha_slope, path.sigma_slope))
    v = a**2 * DATA.s**2 + sigma**2
    of_velocity = (a * ds - sigma * da) ** 2 * DATA.s**2 / v
    variance = of_velocity if process == "rectified_flow" else a**2 * DATA.s**2 / v  # of eps
    torch.testing.assert_close(measured, variance.view(TIME_BINS, -1).mean(1), rtol=0.03, atol=0)


def test_the_measure_is_a_function_of_the_images_alone():
    network = Formula(lambda x_t, t: torch.tanh(x_t))
    together = validation("rectified_flow", [images(8), images(8, first=1)])
    apart = validation("rectified_flow", [images(8, first=1), images(8)])
    assert torch.equal(together(network, CPU), together(network, CPU))
    torch.testing.assert_close(together(network, CPU), apart(network, CPU))


class Scale(nn.Module):
    """A velocity of one number times x_t."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, text: TextTokens) -> torch.Tensor:
        return self.scale * x_t


def trained(checkpoints: Checkpoints | None = None, until: int = 48, every: int = 16) -> Trained:
    """8 images a step, a point of the curve after every 12 (rounded up to a step), a checkpoint after 24."""
    config = TrainingConfig(
        images=48, batch_size=8, ema_halflife_images=8, checkpoint_images=24, log_images=12, precision="no"
    )
    measured = validation("rectified_flow", [images(32, first=99)], every)

    def batches(images_seen: int) -> Iterator[Batch]:
        for number in range(images_seen // 8, until // 8):
            yield images(8, first=number)
        raise KeyboardInterrupt

    return train(
        Scale(), measured.loss, batches, config, seed=0, purpose="test",
        validation=measured if every else None, checkpoints=checkpoints,
    )  # fmt: skip


def test_a_training_measures_at_the_next_point_of_its_curve_and_at_its_end(tmp_path):
    whole = trained()
    seen = {point.images_seen: VALIDATION_LOSS in point.values for point in whole.curve}
    assert seen == {16: True, 24: False, 40: True, 48: True}
    last = named_values(validation("rectified_flow", [images(32, first=99)])(whole.ema, CPU).tolist())
    assert {name: whole.curve[-1].values[name] for name in last} == pytest.approx(last)
    assert last[VALIDATION_LOSS] == pytest.approx(
        sum(value for name, value in last.items() if "_t" in name) / TIME_BINS
    )

    with pytest.raises(KeyboardInterrupt):
        trained(Checkpoints(tmp_path), until=32)
    assert trained(Checkpoints(tmp_path)).curve == whole.curve  # resumed
    unmeasured = trained(every=0)
    assert torch.equal(unmeasured.ema.scale, whole.ema.scale)
    for bare, point in zip(unmeasured.curve, whole.curve, strict=True):
        assert bare.values.items() <= point.values.items()
