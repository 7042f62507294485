"""What train and distill share: the data as batches, the tracked training, the saved model.

Imports torch, so the stages import it when they run.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from components.captioning.kinds import captions_of
from components.conditioning.autoencoder import Autoencoder, PixelAutoencoder, from_pixels
from components.conditioning.config import LEARNED
from components.conditioning.feature_cache import FeatureCache
from components.conditioning.text import TextEncoder, TextTokens
from components.diffusion.dit import DiT
from components.diffusion.sd3_network import SD3Network
from components.errors import InputError
from components.generation.model_folder import Model, save_model
from components.image_size import ImageSize
from components.randomness import seeded_weights
from components.shards.index import HOLDOUT, INDEX_NAME, TRAIN, Split, load_index
from components.shards.loader import CaptionedImages, ShardLoader
from components.shards.reader import read_split
from components.shards.wanted_features import reading_features
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

VOCABULARY_CAPTIONS = 100_000  # that a vocabulary is fitted on, at most
LATENT_CACHE_BYTES = 2**29  # in each process
UTILISATION_IMAGES = 10_000  # a shorter training is over before the two seconds that counting takes pay
VALIDATION_IMAGES = 256  # of which the loss is measured while a teacher trains


@dataclass(frozen=True)
class TrainingTask:
    """What one process trains, and on what. records: in the shards of all processes together; sizes: of them.

    target_halflife: of the average that the loss takes its targets from, if it does; validation: of the
    model on held-out images, if there is one; see train.
    """

    network: DiT | SD3Network
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


def caption_loader(
    shards: Sequence[Path],
    config: Any,
    image_size: int,
    rank: int,
    world_size: int,
    split: Split = TRAIN,
    *,
    unit: int = 1,
) -> ShardLoader:
    """The exact-resume loader of one process over the shards of every snapshot.

    unit: pixels along a side of one patch. Raises InputError where those do not cover images of some bucket,
    and where no image to train on has the model's own size, at which models are evaluated.
    """
    loader = ShardLoader(
        shards,
        batch_size=config.batch_size,
        image_size=image_size,
        seed=config.seed,
        blend=config.blend,
        split=split,
        rank=rank,
        world_size=world_size,
        cache_mb=config.cache_mb,
    )
    for size in loader.sizes:
        if not size.divides_by(unit):
            raise InputError(
                f"the shards have a bucket of {size}, and the model's patches are {unit} pixels a side; set"
                f" shard.buckets to multiples of {unit}, or another patch"
            )
    if split == TRAIN and (square := ImageSize.square(image_size)) not in loader.sizes:
        raise InputError(
            f"the shards have images of {', '.join(map(str, loader.sizes))}, and none of {square}, the"
            f" model's own size, at which it is evaluated; add {square} to shard.buckets"
        )
    return loader


def batches(
    loader: ShardLoader, encoder: TextEncoder, autoencoder: Autoencoder, images_seen: int
) -> Iterator[Batch]:
    """The loader's batches as the losses want them: x_0 (latents), text and mask.

    Both are encoded on the device that this process trains on, one process a GPU; or read from the shards
    where they are precomputed, and then their encoder stays where it is.
    """
    device = PartialState().device
    loader = reading_features(loader, encoder, autoencoder)
    encoder = encoder if loader.texts else encoder.to(device)
    latents = LatentReader(autoencoder if loader.latents else autoencoder.to(device), device)
    for batch in loader.batches(images_seen):
        text = (
            encoder(batch.captions) if batch.texts is None else TextTokens.of_features(batch.texts).to(device)
        )
        yield {
            "x_0": latents(batch) if batch.latents is None else batch.latents.to(device, non_blocking=True),
            "text": text.values,
            "mask": text.mask,
            "keys": batch.keys,
            "epochs": batch.epochs,
        }


def count_held_out(shards: Sequence[Path]) -> int:
    """The records that no training sees."""
    return sum(load_index(index).samples(HOLDOUT) for index in shards)


def held_out_batches(
    shards: Sequence[Path],
    config: Any,
    encoder: TextEncoder,
    autoencoder: Autoencoder,
    image_size: int,
    rank: int,
    world_size: int,
) -> list[Batch]:
    """One process's share of VALIDATION_IMAGES held-out records, or of as many as there are, in batches.

    Of several sizes the first batches are taken, as a training would see them.
    """
    loader = caption_loader(shards, config, image_size, rank, world_size, HOLDOUT)
    count = max(1, min(loader.samples, VALIDATION_IMAGES) // config.batch_size)
    return list(islice(batches(loader, encoder, autoencoder, 0), count))


class LatentReader:
    """Batches of images to latents (B, C, h, w) on the device.

    Those of a fitted autoencoder are kept, each of one image alone: they are a function of the image (at one
    size), to the bit, whatever is beside it, so that a resumed training sees the same.
    """

    def __init__(self, autoencoder: Autoencoder, device: torch.device) -> None:
        self.autoencoder, self.device = autoencoder, device
        self.cache = FeatureCache(LATENT_CACHE_BYTES)

    @torch.no_grad()
    def __call__(self, batch: CaptionedImages) -> Tensor:
        images = from_pixels(batch.images)
        if isinstance(self.autoencoder, PixelAutoencoder):
            return images.to(self.device, non_blocking=True)
        latents = [self._latents(key, images[row : row + 1]) for row, key in enumerate(batch.keys)]
        return torch.cat(latents).to(self.device, non_blocking=True)

    def _latents(self, key: str, image: Tensor) -> Tensor:
        """Of one image, (1, C, h, w), on the CPU."""
        name = f"{key} {tuple(image.shape)}"  # a record of two snapshots may be in two buckets
        latents = self.cache.get(name)
        if latents is None:
            latents = self.autoencoder.encode(image.to(self.device)).cpu()
            self.cache.put(name, latents)
        return latents


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
        trained = train(
            task.network,
            task.loss,
            data,
            config,
            seed=config.seed,
            purpose=purpose,
            target_halflife=task.target_halflife,
            accumulation=config.accumulation,
            validation=task.validation,
            utilisation=config.images >= UTILISATION_IMAGES,
            checkpoints=checkpoints,
            on_batch=observer.batch,
            on_point=observer.point,
        )
    except FloatingPointError as error:
        raise StageFailed(f"{purpose}: {error}") from error
    if config.lora is not None:
        merge_adapters(trained.ema)
    return trained


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
