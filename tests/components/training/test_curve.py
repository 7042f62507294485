"""The meter of the curves: the same sums however seldom the device is looked at, and no divergence missed."""

import pytest
import torch

from components.training.curve import LOOK_STEPS, CurvePoint, Meter, StepReport

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # a name only: nothing here computes on it
BATCH = 8


def report(step: int, loss: float | None = None, norm: float = 2.0) -> StepReport:
    values = torch.tensor([0.25 * step, 1.0 + step if loss is None else loss, norm])
    return StepReport(step * BATCH, 0.5, ["extra", "loss", "grad_norm"], values)


def test_a_point_is_the_mean_of_the_steps_since_the_one_before():
    meter = Meter(CPU, BATCH)
    for step in range(4):
        meter.add(report(step))
        assert meter.loss == 1.0 + step
    values = {"loss": 2.5, "grad_norm": 2.0, "learning_rate": 0.5, "extra": 0.375}
    assert meter.point(4 * BATCH) == CurvePoint(4 * BATCH, values)
    meter.add(report(9))
    assert meter.point(5 * BATCH).values == values | {"loss": 10.0, "extra": 2.25}


def test_a_restored_meter_goes_on_with_the_sums_of_its_checkpoint():
    whole, half = Meter(CPU, BATCH), Meter(CPU, BATCH)
    for step in range(5):
        whole.add(report(step))
    for step in range(3):
        half.add(report(step))
    restored = Meter(CPU, BATCH, half.sums, half.steps)
    for step in range(3, 5):
        restored.add(report(step))
    assert restored.point(40) == whole.point(40)


def test_a_gpu_is_looked_at_once_at_the_start_and_then_every_so_many_steps():
    meter = Meter(GPU, BATCH)
    losses = []
    for step in range(1 + 2 * LOOK_STEPS):
        meter.add(report(step))
        losses.append(meter.loss)
    expected = [1.0] * LOOK_STEPS + [1.0 + LOOK_STEPS] * LOOK_STEPS + [1.0 + 2 * LOOK_STEPS]
    assert losses == expected


def test_the_points_of_a_gpu_are_those_of_a_cpu():
    meters = [Meter(CPU, BATCH), Meter(GPU, BATCH)]
    for stretch in (range(30), range(30, 37), range(37, 37 + 2 * LOOK_STEPS)):
        for meter in meters:
            for step in stretch:
                meter.add(report(step, loss=1 / (3 + step)))
        cpu, gpu = (meter.point(stretch.stop * BATCH) for meter in meters)
        assert cpu == gpu


@pytest.mark.parametrize("broken", [{"loss": torch.inf}, {"loss": -torch.inf}, {"norm": torch.nan}])
def test_a_step_that_is_not_finite_is_named_even_when_it_is_looked_at_late(broken):
    meter = Meter(GPU, BATCH)
    for step in range(20):
        meter.add(report(step, **(broken if step == 7 else {})))
    for look in (meter.look, lambda: meter.point(20 * BATCH)):
        if look is not meter.look:
            meter.add(report(7, **broken))
        with pytest.raises(FloatingPointError, match=r"^training diverged at 56 images \(loss "):
            look()


def test_a_step_that_is_not_finite_is_noticed_within_so_many_steps():
    meter = Meter(GPU, BATCH)
    meter.add(report(0))
    meter.add(report(1, norm=torch.inf))
    with pytest.raises(FloatingPointError, match="at 8 images"):
        for step in range(2, LOOK_STEPS + 1):
            meter.add(report(step))
    with pytest.raises(FloatingPointError, match="at 16 images"):  # on a CPU at once
        Meter(CPU, BATCH).add(report(2, norm=torch.inf))
