"""The autoguide of a trained model: a smaller version of its network, trained less.

Imports torch, so the stage imports it when it runs.
"""

from functools import partial
from typing import Any

from components.diffusion.dit import DiT
from components.training.loop import train
from pipelines.stage import Work
from pipelines.stages.learning.fit_beside import fit_together
from pipelines.stages.learning.training_run import MakeTask


def train_autoguide(work: Work, config: Any, make_task: MakeTask) -> DiT:
    """Train it as the network is trained, in the stage's workers together; it goes on from its checkpoints.

    config: train's, of the autoguide; make_task: makes each process's task of it. Raises StageFailed when it
    diverges.
    """
    fit = partial(_fit, config, make_task)
    return fit_together(work, "autoguide", config, fit, accumulation=config.accumulation)


def _fit(config: Any, make_task: MakeTask, rank: int, world_size: int, *, seed: int, **loop: Any) -> DiT:
    """One process's part. loop: see train."""
    task = make_task(rank, world_size)
    trained = train(
        task.network,
        task.loss,
        task.data,
        config,
        seed=seed,
        purpose="autoguide",
        accumulation=config.accumulation,
        sharded=config.shard_weights,
        **loop,
    )
    assert isinstance(trained.ema, DiT)
    return trained.ema.cpu().eval().requires_grad_(False)
