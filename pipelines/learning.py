"""What train and distill share: the data as batches, the tracked training, the saved model.

Imports torch, so the stages import it when they run.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from components.captioning.blend import Blend
from components.conditioning.config import LEARNED
from components.conditioning.text import TextEncoder
from components.diffusion.dit import DiT
from components.generation.generator import from_pixels
from components.generation.model_folder import Model, save_model
from components.randomness import derive_seed
from components.shards.index import INDEX_NAME, TRAIN
from components.shards.loader import CAPTION_COLUMNS, ShardLoader
from components.shards.reader import read_split
from components.training.checkpoints import Checkpoints
from components.training.loop import Batch, CurvePoint, LossFunction, Trained, train
from pipelines.errors import StageFailed
from pipelines.faults import fault_point
from pipelines.receipts import Counts, PartReceipt
from pipelines.stage import Input, Work
from pipelines.tracking import Tracker
from pipelines.train import CURVE, MODEL

VOCABULARY_CAPTIONS = 100_000  # captions that a learned vocabulary is fitted on, at most


def build_network(config: Any, encoder: Any) -> DiT:
    """The untrained DiT, sized for its text; its weights are a function of the seed alone."""
    learned = config.text.model == LEARNED
    text = {"vocabulary": encoder.vocabulary} if learned else {"text_features": encoder.features}
    text["text_length"] = config.text.max_length
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        return DiT(config.network.model_copy(update=text))


def captions(shards: Sequence[Input]) -> Iterator[str]:
    """Every caption of the training records, in shard order, up to VOCABULARY_CAPTIONS."""
    left = VOCABULARY_CAPTIONS
    for shard in shards:
        for sample in read_split(shard.path / INDEX_NAME, TRAIN):
            for text in (sample.meta.get(column) for column in CAPTION_COLUMNS.values()):
                if text and left:
                    left -= 1
                    yield str(text)
            if not left:
                return


def caption_loader(shards: Sequence[Input], config: Any, image_size: int, blend: Blend) -> ShardLoader:
    """The exact-resume loader over the shards of every snapshot."""
    return ShardLoader(
        [shard.path / INDEX_NAME for shard in shards],
        batch_size=config.batch_size,
        image_size=image_size,
        seed=config.seed,
        blend=blend,
        cache_mb=config.cache_mb,
    )


def batches(loader: ShardLoader, encoder: TextEncoder, images_seen: int) -> Iterator[Batch]:
    """The loader's batches as the losses want them: x_0 in [-1, 1], text and mask."""
    for batch in loader.batches(images_seen):
        text = encoder(batch.captions)
        yield {"x_0": from_pixels(batch.images), "text": text.values, "mask": text.mask}


def train_tracked(
    work: Work,
    config: Any,
    network: DiT,
    loss: LossFunction,
    data: Callable[[int], Iterator[Batch]],
) -> Trained:
    """Train with checkpoints under the output, progress on the terminal and curves in MLflow."""
    store = Checkpoints(
        work.scratch / "checkpoints",
        before_rename=lambda: fault_point(f"{work.stage}.checkpoint.before_rename"),
    )
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
        speeds: list[float] = []

        def on_point(point: CurvePoint) -> None:
            speeds.append(point.images_per_second)
            run.log_metrics({**point.values, "images_per_second": speeds[-1]}, step=point.images_seen)

        try:
            trained = train(
                network,
                loss,
                data,
                config,
                seed=config.seed,
                purpose=work.stage,
                checkpoints=store,
                on_batch=lambda images, value: advance(images, f"loss {value:.3f}"),
                on_point=on_point,
            )
        except FloatingPointError as error:
            raise StageFailed(f"{work.stage}: {error}") from error
        work.info["mlflow_run"] = run.id
    work.info["images_per_second"] = round(sorted(speeds)[len(speeds) // 2], 1) if speeds else None
    return trained


def save_trained(work: Work, model: Model, trained: Trained, records: int) -> list[PartReceipt]:
    """The model folder and the loss curve, as one part each. Every record of the shards was kept."""
    with work.folder(MODEL) as folder:
        save_model(folder, model)
    points = [{"images_seen": point.images_seen, "values": point.values} for point in trained.curve]
    curve = work.parts.write("curve", {CURVE: lambda path: _write_json(path, points)})
    return [work.adopt(MODEL, counts=Counts.model_validate({"in": records, "kept": records})), curve]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
