"""What train and distill share: the data as batches, the tracked training, the saved model.

Imports torch, so the stages import it when they run.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from components.captioning.config import FIT, NONE
from components.captioning.kinds import captions_of
from components.conditioning.config import LEARNED
from components.conditioning.text import TextEncoder
from components.diffusion.dit import DiT
from components.generation.generator import from_pixels
from components.generation.model_folder import Model, save_model
from components.generation.prompt_upsampler import PromptUpsampler
from components.generation.prompt_upsampler_fit import fit_prompt_upsampler
from components.randomness import seeded_weights
from components.shards.index import INDEX_NAME, TRAIN
from components.shards.loader import ShardLoader
from components.shards.reader import read_split
from components.training.checkpoints import Checkpoints
from components.training.loop import CurvePoint, Trained, train
from components.training.loss import Batch, LossFunction
from pipelines.errors import StageFailed
from pipelines.execution.training_workers import train_together
from pipelines.execution.worker_events import Event
from pipelines.registry.mlflow_run import TrackedRun
from pipelines.registry.mlflow_store import Tracker
from pipelines.stage import Work
from pipelines.stages.train import CURVE, MODEL
from pipelines.store.faults import checkpoints_at
from pipelines.store.receipts import Counts, PartReceipt

VOCABULARY_CAPTIONS = 100_000  # that a vocabulary is fitted on, at most; and pairs, an upsampler


@dataclass(frozen=True)
class TrainingTask:
    """What one process trains, and on what. records: in the shards of all processes together."""

    network: DiT
    loss: LossFunction
    data: Callable[[int], Iterator[Batch]]
    records: int


MakeTask = Callable[
    [int, int], TrainingTask
]  # (rank, world_size) -> that process's task; goes to Ray's workers


def indexes(work: Work) -> list[Path]:
    """The shard indexes of every snapshot."""
    return [shard.path / INDEX_NAME for shard in work.inputs["shard"]]


def build_network(config: Any, encoder: Any) -> DiT:
    """The untrained DiT, sized for its text; its weights are a function of the seed alone."""
    learned = config.text.model == LEARNED
    text = {"vocabulary": encoder.vocabulary} if learned else {"text_features": encoder.features}
    text["text_length"] = config.text.max_length
    with seeded_weights(config.seed, "weights"):
        return DiT(config.network.model_copy(update=text))


def captions(shards: Sequence[Path]) -> Iterator[str]:
    """Every caption of the training records, in shard order, up to VOCABULARY_CAPTIONS."""
    left = VOCABULARY_CAPTIONS
    for index in shards:
        for sample in read_split(index, TRAIN):
            for text in captions_of(sample.meta).values():
                if text and left:
                    left -= 1
                    yield str(text)
            if not left:
                return


def make_upsampler(work: Work, shards: Sequence[Path]) -> PromptUpsampler | None:
    """The upsampler that the config names, or one fitted on the captions of the training records.

    None where the DiT will see no long captions. Raises ValueError where the named one is none, or no record
    has both captions; StageFailed when the fit diverges.
    """
    config = work.config.upsampler
    if config.model == NONE or (config.model == FIT and not work.config.blend.share("long")):
        return None
    if config.model != FIT:
        return PromptUpsampler.load(config.model, revision=config.revision)
    pairs = islice(_caption_pairs(shards), VOCABULARY_CAPTIONS)
    with work.progress.task("upsampler", config.training.images, "captions") as advance:
        try:
            return fit_prompt_upsampler(
                list(pairs),
                config,
                seed=work.config.seed,
                checkpoints=checkpoints_at(work.scratch / "upsampler", "upsampler"),
                on_batch=lambda captions, loss: advance(captions, f"loss {loss:.3f}"),
            )
        except FloatingPointError as error:
            raise StageFailed(f"train.upsampler: {error}") from error


def _caption_pairs(shards: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """The short and the long caption of every training record that has both, in shard order."""
    for index in shards:
        for sample in read_split(index, TRAIN):
            short, long = (captions_of(sample.meta)[kind] for kind in ("short", "long"))
            if short and long:
                yield str(short), str(long)


def caption_loader(
    shards: Sequence[Path], config: Any, image_size: int, rank: int, world_size: int
) -> ShardLoader:
    """The exact-resume loader of one process over the shards of every snapshot."""
    return ShardLoader(
        shards,
        batch_size=config.batch_size,
        image_size=image_size,
        seed=config.seed,
        blend=config.blend,
        rank=rank,
        world_size=world_size,
        cache_mb=config.cache_mb,
    )


def batches(loader: ShardLoader, encoder: TextEncoder, images_seen: int) -> Iterator[Batch]:
    """The loader's batches as the losses want them: x_0 in [-1, 1], text and mask."""
    for batch in loader.batches(images_seen):
        text = encoder(batch.captions)
        yield {
            "x_0": from_pixels(batch.images),
            "text": text.values,
            "mask": text.mask,
            "keys": batch.keys,
            "epochs": batch.epochs,
        }


def run_task(
    task: TrainingTask,
    config: Any,
    *,
    purpose: str,
    checkpoints: Checkpoints,
    on_start: Callable[[int], None],
    on_batch: Callable[[int, float], None],
    on_point: Callable[[CurvePoint], None],
) -> Trained:
    """The training loop on this process's task. on_start(images_seen): where it begins or goes on.

    Raises StageFailed when it diverges.
    """

    def data(images_seen: int) -> Iterator[Batch]:
        on_start(images_seen)
        return task.data(images_seen)

    try:
        return train(
            task.network,
            task.loss,
            data,
            config,
            seed=config.seed,
            purpose=purpose,
            checkpoints=checkpoints,
            on_batch=on_batch,
            on_point=on_point,
        )
    except FloatingPointError as error:
        raise StageFailed(f"{purpose}: {error}") from error


def train_tracked(work: Work, task: TrainingTask, make_task: MakeTask) -> Trained:
    """Train with checkpoints under the output, progress on the terminal and curves in MLflow.

    task: what this process trains; with several workers it trains nothing, and reads the result from the
    last checkpoint of theirs. make_task: makes each worker's task.
    """
    config, folder = work.config, work.scratch / "checkpoints"
    store = checkpoints_at(folder, work.stage)
    inputs = {
        name if len(given) == 1 else f"{name}-{number}": one.digest
        for name, given in work.inputs.items()
        for number, one in enumerate(given)
    }
    tracker = Tracker(work.home, work.tracking_uri)
    with (
        tracker.run(work.stage, work.fingerprint, params=config.model_dump(), datasets=inputs) as run,
        work.progress.task(work.stage, config.images, "images") as advance,
    ):
        shown = _Shown(run, advance)
        workers = _processes(work)
        if workers > 1 and store.images_seen() < config.images:
            train_together(
                work, config.model_copy(update={"workers": workers}), make_task, folder, shown.event
            )
        trained = run_task(
            task,
            config,
            purpose=work.stage,
            checkpoints=store,
            on_start=shown.start,
            on_batch=shown.batch,
            on_point=shown.point,
        )
        for point in trained.curve:
            if point.images_seen not in shown.points:  # a killed run reached it, and may not have logged it
                run.log_metrics(point.values, step=point.images_seen)
        work.info["mlflow_run"] = run.id
    work.info["images_per_second"] = shown.speed
    return trained


def _processes(work: Work) -> int:
    """The configured workers, or as many as this machine's GPUs take that share a batch evenly."""
    config = work.config
    fitting = work.engine.fitting(config.workers) if config.workers > 1 else 1
    return max(count for count in range(1, fitting + 1) if config.batch_size % count == 0)


class _Shown:
    """Shows a training as it goes, whichever process it goes on in."""

    def __init__(self, run: TrackedRun, advance: Callable[..., None]) -> None:
        self.run, self.advance = run, advance
        self.images: int | None = None  # seen so far
        self.points: dict[int, float] = {}  # images seen -> images per second

    def start(self, images_seen: int) -> None:
        """It goes on from here; when workers died, that is some way back."""
        if self.images is not None and images_seen < self.images:
            self.advance(images_seen - self.images)
        self.images = images_seen

    def batch(self, images: int, loss: float) -> None:
        self.images = (self.images or 0) + images
        self.advance(images, f"loss {loss:.3f}")

    def point(self, point: CurvePoint) -> None:
        values = {**point.values, "images_per_second": point.images_per_second}
        if point.images_seen not in self.points:
            self.run.log_metrics(values, step=point.images_seen)
        self.points[point.images_seen] = point.images_per_second

    def event(self, event: Event) -> None:
        """What the first of several workers said."""
        if "start" in event:
            self.start(event["start"])
        elif "point" in event:
            self.point(CurvePoint(event["point"], event["values"], event["rate"]))
        else:
            self.batch(event["images"], event["loss"])

    @property
    def speed(self) -> float | None:
        """The median of the points' images per second."""
        speeds = sorted(self.points.values())
        return round(speeds[len(speeds) // 2], 1) if speeds else None


def save_trained(work: Work, model: Model, trained: Trained, records: int) -> list[PartReceipt]:
    """The model folder and the loss curve, as one part each. Every record of the shards was kept."""
    with work.folder(MODEL) as folder:
        save_model(folder, model)
    points = [{"images_seen": point.images_seen, "values": point.values} for point in trained.curve]
    curve = work.parts.write("curve", {CURVE: lambda path: _write_json(path, points)})
    return [work.adopt(MODEL, counts=Counts.model_validate({"in": records, "kept": records})), curve]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
