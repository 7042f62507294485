"""A fit that train makes for its model beside the network: its progress, its checkpoints, its failure."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from components.training.checkpoints import Checkpoints
from components.training.config import TrainingConfig
from pipelines.errors import StageFailed
from pipelines.execution.training_workers import train_together
from pipelines.execution.worker_events import EventWriter
from pipelines.stage import Work
from pipelines.stages.learning.training_progress import ProgressBar, TrainingEvents, replay
from pipelines.stages.learning.training_run import fitting_workers
from pipelines.store.faults import checkpoints_at

Made = TypeVar("Made")


def fit_beside(work: Work, name: str, total: int, unit: str, fit: Callable[..., Made]) -> Made:
    """What `fit(seed=, checkpoints=, on_batch=)` makes of `total` units; it goes on from its checkpoints.

    name: of the setting in train's config. Raises StageFailed where the fit diverges.
    """
    with work.progress.task(name, total, unit) as advance, _diverging(name):
        return fit(
            seed=work.config.seed,
            checkpoints=_checkpoints(work.scratch, name),
            on_batch=lambda count, loss: advance(count, f"loss {loss:.3f}"),
        )


def fit_together(
    work: Work, name: str, training: TrainingConfig, fit: Callable[..., Made], *, accumulation: int = 1
) -> Made:
    """What `fit(rank, world_size, seed=, checkpoints=, on_batch=)` makes, in the stage's workers together.

    fit: pickled for Ray's workers; with rank 0 of 1 it takes what they made from their last checkpoint.
    accumulation: parts that each worker's share of a batch has. name and errors: as of fit_beside.
    """
    workers = fitting_workers(work, training.batch_size // accumulation)
    checkpoints = _checkpoints(work.scratch, name)
    if workers == 1:
        return fit_beside(work, name, training.images, "images", partial(fit, 0, 1))
    if checkpoints.images_seen() < training.images:
        with work.progress.task(name, training.images, "images") as advance:
            progress = ProgressBar(advance)
            train_together(
                work.engine,
                work.stage,
                partial(_fit_rank, fit, name, work.config.seed, work.scratch),
                workers=workers,
                cpus=training.cpu_threads,
                scratch=work.scratch / f"{name}-workers",
                on_event=lambda event: replay(event, progress),
            )
    return fit(0, 1, seed=work.config.seed, checkpoints=checkpoints)


def _fit_rank(
    fit: Callable[..., object],
    name: str,
    seed: int,
    scratch: Path,
    rank: int,
    world_size: int,
    events: EventWriter,
) -> None:
    """What one of several workers does."""
    checkpoints, observer = _checkpoints(scratch, name), TrainingEvents(events)
    observer.start(checkpoints.images_seen())
    with _diverging(name):
        fit(rank, world_size, seed=seed, checkpoints=checkpoints, on_batch=observer.batch)


def _checkpoints(scratch: Path, name: str) -> Checkpoints:
    return checkpoints_at(scratch / name, name)


@contextmanager
def _diverging(name: str) -> Iterator[None]:
    try:
        yield
    except FloatingPointError as error:
        raise StageFailed(f"train.{name}: {error}") from error
