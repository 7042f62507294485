"""A training as it is shown: the same from this process and, through events, from a worker."""

from pathlib import Path

import pytest

from components.training.curve import CurvePoint
from pipelines.execution.worker_events import EventReader, EventWriter
from pipelines.stages.learning.training_progress import TrainingEvents, TrainingProgress, replay


class Shown:
    """Stands for an MLflow run and a progress bar, and keeps what they were given."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.done, self.note = 0, ""

    def log_metrics(self, metrics: dict[str, float], *, step: int) -> None:
        self.logged.append((step, metrics))

    def advance(self, n: int, note: str = "") -> None:
        self.done, self.note = self.done + n, note or self.note


def point(images_seen: int, rate: float = 10.0) -> CurvePoint:
    return CurvePoint(images_seen, {"loss": images_seen / 100}, rate, mfu=rate / 64)


def train_to(observer, start: int, end: int) -> None:
    """Steps of 8 images with a point every 16."""
    observer.start(start)
    for images_seen in range(start + 8, end + 1, 8):
        observer.batch(8, images_seen / 100)
        if images_seen % 16 == 0:
            observer.point(point(images_seen, rate=images_seen))


@pytest.fixture(params=["in this process", "in a worker"])
def train_shown(request, tmp_path: Path):
    """A function like train_to, whose reports reach a progress directly or as a worker's events."""
    reader = EventReader(tmp_path / "events")

    def through_events(progress: TrainingProgress, start: int, end: int) -> None:
        train_to(TrainingEvents(EventWriter(tmp_path / "events", "0")), start, end)
        for _, event in reader.poll():
            replay(event, progress)

    return train_to if request.param == "in this process" else through_events


def test_the_bar_and_the_curves_follow_the_training(train_shown):
    shown = Shown()
    progress = TrainingProgress(shown, shown.advance)
    train_shown(progress, 0, 48)
    assert (shown.done, shown.note) == (48, "loss 0.480")
    logged = [(n, {"loss": n / 100, "images_per_second": n, "mfu": n / 64}) for n in (16, 32, 48)]
    assert shown.logged == logged
    assert (progress.images_per_second, progress.mfu) == (32, 0.5)  # the medians


def test_workers_that_die_and_go_on_take_the_bar_back_and_log_no_point_twice(train_shown):
    shown = Shown()
    progress = TrainingProgress(shown, shown.advance)
    train_shown(progress, 0, 40)
    train_shown(progress, 24, 48)  # from the last checkpoint
    assert shown.done == 48
    assert [step for step, _ in shown.logged] == [16, 32, 48]


def test_a_resumed_run_logs_the_points_that_the_killed_one_may_not_have_logged(train_shown):
    shown = Shown()
    progress = TrainingProgress(shown, shown.advance)
    train_shown(progress, 32, 48)
    progress.complete((point(16), point(32), point(48)))
    assert sorted(step for step, _ in shown.logged) == [16, 32, 48]


def test_a_finished_training_has_no_speed():
    shown = Shown()
    progress = TrainingProgress(shown, shown.advance)
    train_to(progress, 48, 48)
    assert progress.images_per_second is progress.mfu is None and shown.done == 0
