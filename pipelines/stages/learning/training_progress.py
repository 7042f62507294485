"""A training as it goes: shown on the terminal and in MLflow, or sent by a worker to the driver for that.

What is reported is the same either way: where it starts, every step, every point of its curves.
"""

from collections.abc import Callable
from statistics import median_high
from typing import Protocol

from components.training.curve import CurvePoint
from pipelines.execution.worker_events import Event, EventWriter
from pipelines.registry.mlflow_run import TrackedRun


class TrainingObserver(Protocol):
    """What a training reports to."""

    def start(self, images_seen: int) -> None:
        """It begins, or goes on from a checkpoint, here."""

    def batch(self, images: int, loss: float) -> None:
        """It has seen so many images more. loss: the latest that is known."""

    def point(self, point: CurvePoint) -> None:
        """Its curves have another point."""


class ProgressBar:
    """Advances a progress bar, whichever process the training goes on in, and shows nothing else."""

    def __init__(self, advance: Callable[..., None]) -> None:
        self._advance = advance
        self._images_seen: int | None = None

    def start(self, images_seen: int) -> None:
        """When workers died, it goes on some way back."""
        if self._images_seen is not None and images_seen < self._images_seen:
            self._advance(images_seen - self._images_seen)
        self._images_seen = images_seen

    def batch(self, images: int, loss: float) -> None:
        self._images_seen = (self._images_seen or 0) + images
        self._advance(images, f"loss {loss:.3f}")

    def point(self, point: CurvePoint) -> None:
        pass


class TrainingProgress(ProgressBar):
    """Advances the progress bar and logs the curves."""

    def __init__(self, run: TrackedRun, advance: Callable[..., None]) -> None:
        super().__init__(advance)
        self._run = run
        self._points: dict[int, CurvePoint] = {}  # by images seen; what is seen again replaces it

    def point(self, point: CurvePoint) -> None:
        if point.images_seen not in self._points:
            values = {**point.values, "images_per_second": point.images_per_second}
            if point.mfu is not None:
                values["mfu"] = point.mfu
            self._run.log_metrics(values, step=point.images_seen)
        self._points[point.images_seen] = point

    def complete(self, curve: tuple[CurvePoint, ...]) -> None:
        """Log the points that a killed run reached, and may not have logged."""
        for point in curve:
            if point.images_seen not in self._points:
                self._run.log_metrics(point.values, step=point.images_seen)

    @property
    def images_per_second(self) -> float | None:
        """The median of the points' speeds; None where there was nothing to do."""
        speeds = [point.images_per_second for point in self._points.values()]
        return round(median_high(speeds), 1) if speeds else None

    @property
    def mfu(self) -> float | None:
        """The median of the points' shares of the device's arithmetic; None where there is none."""
        shares = [point.mfu for point in self._points.values() if point.mfu is not None]
        return round(median_high(shares), 3) if shares else None


class TrainingEvents:
    """A worker's observer: writes events, which the driver replays to its own."""

    def __init__(self, events: EventWriter) -> None:
        self._events = events

    def start(self, images_seen: int) -> None:
        self._events.write(start=images_seen)

    def batch(self, images: int, loss: float) -> None:
        self._events.write(images=images, loss=loss)

    def point(self, point: CurvePoint) -> None:
        self._events.write(
            point=point.images_seen, values=point.values, rate=point.images_per_second, mfu=point.mfu
        )


def replay(event: Event, observer: TrainingObserver) -> None:
    """Pass on what TrainingEvents wrote."""
    if "start" in event:
        observer.start(event["start"])
    elif "point" in event:
        observer.point(CurvePoint(event["point"], event["values"], event["rate"], event["mfu"]))
    else:
        observer.batch(event["images"], event["loss"])
