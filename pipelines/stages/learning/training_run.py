"""What train and distill share: the tracked training and the saved model.

Imports torch, so the stages import it when they run.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from components.conditioning.autoencoder import Autoencoder
from components.conditioning.config import LEARNED
from components.diffusion.dit import DiT
from components.diffusion.sd3_network import SD3Network
from components.distillation.matching import MatchedStudent
from components.errors import InputError
from components.generation.model_folder import Model, save_model
from components.image_size import ImageSize
from components.randomness import seeded_weights
from components.shards.index import INDEX_NAME
from components.training.checkpoints import Checkpoints
from components.training.ema import HalfLife
from components.training.loop import Trained, train
from components.training.lora import add_adapters, merge_adapters
from components.training.loss import Batch, LossFunction
from components.training.validation import Validation
from pipelines.errors import StageFailed
from pipelines.execution.training_workers import train_together
from pipelines.execution.worker_events import EventWriter
from pipelines.registry.mlflow_store import Tracker
from pipelines.stage import Work
from pipelines.stages.learning.training_config import CURVE
from pipelines.stages.learning.training_progress import (
    TrainingEvents,
    TrainingObserver,
    TrainingProgress,
    replay,
)
from pipelines.store.faults import checkpoints_at
from pipelines.store.receipts import MODEL, Counts, PartReceipt

UTILISATION_IMAGES = 10_000  # a shorter training is over before the two seconds that counting takes pay


@dataclass(frozen=True)
class TrainingTask:
    """What one process trains, and on what. records: in the shards of all processes together; sizes: of them.

    target_halflife: of the average that the loss takes its targets from, if it does; validation: of the
    model on held-out images, if there is one; see train.
    """

    network: DiT | SD3Network | MatchedStudent
    loss: LossFunction
    data: Callable[[int], Iterator[Batch]]
    records: int
    sizes: tuple[ImageSize, ...]
    target_halflife: HalfLife | None = None
    validation: Validation | None = None


# (rank, world_size) -> that process's task; pickled for Ray's workers
MakeTask = Callable[[int, int], TrainingTask]


def indexes(work: Work) -> list[Path]:
    """The shard indexes of every snapshot."""
    return [shard.path / INDEX_NAME for shard in work.inputs["shard"]]


def build_network(config: Any, encoder: Any, autoencoder: Autoencoder) -> DiT:
    """The untrained DiT, sized for its text; its weights are a function of the seed alone.

    Raises InputError where it does not fit the autoencoder's latents.
    """
    if config.network.channels != autoencoder.channels:
        raise InputError(
            f"train.network.channels is {config.network.channels}, and autoencoder {autoencoder.identity}"
            f" has {autoencoder.channels}; set it to that"
        )
    learned = config.text.model == LEARNED
    text = {"vocabulary": encoder.vocabulary} if learned else {"text_features": encoder.features}
    text["text_length"] = config.text.max_length
    with seeded_weights(config.seed, "weights"):
        return DiT(config.network.model_copy(update=text))


def run_task(
    task: TrainingTask, config: Any, *, purpose: str, checkpoints: Checkpoints, observer: TrainingObserver
) -> Trained:
    """The training loop on this process's task. Raises StageFailed when it diverges."""

    def data(images_seen: int) -> Iterator[Batch]:
        observer.start(images_seen)
        return task.data(images_seen)

    if config.lora is not None:
        add_adapters(task.network, config.lora, config.seed)
    if config.activation_checkpointing:
        task.network.checkpoint_activations()
    try:
        return train(
            task.network,
            task.loss,
            data,
            config,
            seed=config.seed,
            purpose=purpose,
            target_halflife=task.target_halflife,
            accumulation=config.accumulation,
            sharded=config.shard_weights,
            validation=task.validation,
            utilisation=config.images >= UTILISATION_IMAGES,
            checkpoints=checkpoints,
            on_batch=observer.batch,
            on_point=observer.point,
        )
    except FloatingPointError as error:
        raise StageFailed(f"{purpose}: {error}") from error


def check_tracking(work: Work) -> None:
    """Raise ConfigError now where the curves will have no place, as in a HOME that was moved: not once what
    comes before the training has been fitted.
    """
    _ = Tracker(work.home, work.tracking_uri).experiment


def train_tracked(work: Work, task: TrainingTask, make_task: MakeTask) -> Trained:
    """Train with checkpoints under the output, progress on the terminal and curves in MLflow.

    task: what this process trains; with several workers it trains nothing, and reads the result from the
    last checkpoint of theirs. make_task: makes each worker's task.
    """
    config, folder = work.config, work.scratch / "checkpoints"
    checkpoints = _checkpoints(folder, work.stage, config)
    tracker = Tracker(work.home, work.tracking_uri)
    with (
        tracker.run(
            work.stage, work.fingerprint, params=config.model_dump(), datasets=work.input_digests
        ) as run,
        work.progress.task(work.stage, config.images, "images") as advance,
    ):
        progress = TrainingProgress(run, advance)
        workers = fitting_workers(work, config.batch_size // config.accumulation)
        if workers > 1 and checkpoints.images_seen() < config.images:
            train_rank = partial(_train_rank, work.stage, config, make_task, folder)
            train_together(
                work.engine,
                work.stage,
                train_rank,
                workers=workers,
                cpus=config.cpu_threads,
                scratch=work.scratch,
                on_event=lambda event: replay(event, progress),
            )
        trained = run_task(task, config, purpose=work.stage, checkpoints=checkpoints, observer=progress)
        if config.lora is not None:
            merge_adapters(trained.ema)
        progress.complete(trained.curve)
        work.info["mlflow_run"] = run.id
    work.info["images_per_second"], work.info["mfu"] = progress.images_per_second, progress.mfu
    return trained


def _train_rank(
    stage: str,
    config: Any,
    make_task: MakeTask,
    checkpoints: Path,
    rank: int,
    world_size: int,
    events: EventWriter,
) -> None:
    """What one of several workers does."""
    run_task(
        make_task(rank, world_size),
        config,
        purpose=stage,
        checkpoints=_checkpoints(checkpoints, stage, config),
        observer=TrainingEvents(events),
    )


def _checkpoints(folder: Path, stage: str, config: Any) -> Checkpoints:
    return checkpoints_at(
        folder, stage, keep=config.keep_checkpoints, background=config.background_checkpoints
    )


def fitting_workers(work: Work, batch_size: int) -> int:
    """The configured workers, or as many as this machine's GPUs take that share a batch evenly."""
    configured = work.config.workers
    fitting = work.engine.fitting(configured) if configured > 1 else 1
    return max(count for count in range(1, fitting + 1) if batch_size % count == 0)


def save_trained(work: Work, model: Model, trained: Trained, records: int) -> list[PartReceipt]:
    """The model folder and the loss curve, as one part each. Every record of the shards was kept."""
    with work.folder(MODEL) as folder:
        save_model(folder, model)
    points = [{"images_seen": point.images_seen, "values": point.values} for point in trained.curve]
    curve = work.parts.write("curve", {CURVE: lambda path: _write_json(path, points)})
    return [work.adopt(MODEL, counts=Counts.model_validate({"in": records, "kept": records})), curve]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
