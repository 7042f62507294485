"""The curves of a training: what its steps report, looked at as seldom as the device wants it."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

LOOK_STEPS = 100  # steps of a GPU after which a diverged training is noticed, at the latest


@dataclass(frozen=True)
class CurvePoint:
    """Means since the previous point."""

    images_seen: int
    values: dict[str, float]  # loss, grad_norm, learning_rate and the loss's own metrics
    images_per_second: float = field(compare=False, default=0.0)
    mfu: float | None = field(compare=False, default=None)  # utilisation.py; None where nobody asked


@dataclass(frozen=True)
class StepReport:
    """What one step reports. images_seen: before it. values (K,): on the device, named by `names`."""

    images_seen: int
    learning_rate: float
    names: Sequence[str]  # "loss" and "grad_norm" among them
    values: Tensor


class Meter:
    """Means of the steps' reports between two points of the curve.

    Reading a value makes the host wait for the device. On a CPU that costs nothing, and every report is read
    at once; on a GPU the reports of up to LOOK_STEPS steps are kept there and read together, before every
    point and checkpoint. The sums are the same either way.
    """

    def __init__(
        self, device: torch.device, batch_size: int, sums: Mapping[str, float] | None = None, steps: int = 0
    ) -> None:
        self.look_steps = 1 if device.type == "cpu" else LOOK_STEPS
        self.batch_size = batch_size
        self.loss = math.nan  # of the latest step that was looked at
        self.sums, self.steps = dict(sums or {}), steps
        self._pending: list[StepReport] = []
        self.restart()

    def add(self, report: StepReport) -> None:
        """Take in a step's report. Raises FloatingPointError as `look` does."""
        self._pending.append(report)
        if len(self._pending) >= self.look_steps or math.isnan(self.loss):  # the first one, for the display
            self.look()

    def look(self) -> None:
        """Read the reports that are pending: the host waits for the device, once.

        Raises FloatingPointError at the first step whose loss or gradient was not finite.
        """
        reports, self._pending = self._pending, []
        if not reports:
            return
        for report, row in zip(reports, torch.stack([r.values for r in reports]).tolist(), strict=True):
            values = dict(zip(report.names, row, strict=True))
            loss, norm = values.pop("loss"), values.pop("grad_norm")
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise FloatingPointError(
                    f"training diverged at {report.images_seen:,} images (loss {loss}, gradient {norm})"
                    "; lower the learning rate"
                )
            shared = {"loss": loss, "grad_norm": norm, "learning_rate": report.learning_rate}
            for name, value in (shared | values).items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.loss = loss
        self.steps += len(reports)
        self._images += len(reports) * self.batch_size

    def point(self, images_seen: int) -> CurvePoint:
        """The means so far; the next stretch starts here. Raises FloatingPointError as `look` does."""
        self.look()
        rate = self._images / max(time.perf_counter() - self._started, 1e-9)
        values = {name: total / self.steps for name, total in self.sums.items()}
        self.sums, self.steps = {}, 0
        self.restart()
        return CurvePoint(images_seen, values, rate)

    def restart(self) -> None:
        """Time what follows from now on."""
        self._images, self._started = 0, time.perf_counter()
