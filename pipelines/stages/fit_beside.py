"""A fit that train makes for its model beside the network: its progress, its checkpoints, its failure."""

from collections.abc import Callable
from typing import TypeVar

from pipelines.errors import StageFailed
from pipelines.stage import Work
from pipelines.store.faults import checkpoints_at

Made = TypeVar("Made")


def fit_beside(work: Work, name: str, total: int, unit: str, fit: Callable[..., Made]) -> Made:
    """What `fit(seed=, checkpoints=, on_batch=)` makes of `total` units; it goes on from its checkpoints.

    name: of the setting in train's config. Raises StageFailed where the fit diverges.
    """
    with work.progress.task(name, total, unit) as advance:
        try:
            return fit(
                seed=work.config.seed,
                checkpoints=checkpoints_at(work.scratch / name, name),
                on_batch=lambda count, loss: advance(count, f"loss {loss:.3f}"),
            )
        except FloatingPointError as error:
            raise StageFailed(f"train.{name}: {error}") from error
