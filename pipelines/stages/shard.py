"""shard: captioned records into deterministic WebDataset tars, and their index.

    HOME/shard/<fingerprint>/train-00000.tar, ..., holdout-00000.tar, index.json

A sample's JSON is its row of recaption's output, `image` aside (components/corpus/schemas.py says where to
add a column). One tar is one part. Which record goes where is planned from the row counts of recaption's
parts (see components/shards/plan.py), so any number of workers, killed or not, writes the same bytes.

With `latents` and `texts` in the config, a sample's features go into the tar, too, and the index says what
made them (components/shards/stored_features.py). With `buckets`, a tar holds records of one of them.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from components.captioning.kinds import CAPTION_KINDS
from components.config_field import added_field
from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason, captioned_schema, check_schema, optional_fields
from components.durable import write_bytes
from components.errors import InputError
from components.image_size import ImageSize, WrittenSize
from components.shards.buckets import nearest_bucket
from components.shards.index import HOLDOUT, INDEX_NAME, TRAIN, Shard, ShardIndex
from components.shards.plan import PlannedTar, is_held_out, number_in_group, plan_buckets
from components.shards.stored_features import Features
from components.shards.writer import Sample, image_extension, write_tar
from pipelines.errors import StageFailed
from pipelines.stage import Stage, StageConfig, Work
from pipelines.stages.data.part_records import (
    CAPTIONED_FOLDER,
    Row,
    Writer,
    open_part,
    reject_row,
    rejects_file,
    write_part,
)
from pipelines.stages.data.precompute_config import PrecomputeConfig
from pipelines.stages.model_runtime import PLACEMENT, worker_resources
from pipelines.store.parts import Parts
from pipelines.store.receipts import PartReceipt

if TYPE_CHECKING:
    from components.shards.precompute import Encoders

NAME = "shard"
BEGUN = "encoders.json"  # in the scratch folder: what the first tars were made with
SIZE_COLUMNS = ["height", "width"]  # pixels, upright
READ_ROWS = 64  # rows of a part that are decoded at a time


class ShardConfig(PrecomputeConfig, StageConfig):
    """How the tars are cut, and what is in them beside images and captions."""

    NOT_IN_FINGERPRINT: ClassVar[Mapping[str, Any]] = {"encoders": PLACEMENT}

    seed: int = Field(0, ge=0, description="of the shuffle")
    samples_per_tar: int = Field(1000, ge=1, description="about how many samples a tar holds")
    tars_per_group: int = Field(
        4, ge=1, description="tars that mix the same parts, and times each part is read for them"
    )
    holdout_fraction: float = Field(
        0.04, gt=0, le=0.5, description="share of all keys that is kept from training, for the evaluation"
    )
    buckets: tuple[WrittenSize, ...] = added_field(
        (),
        description="sizes to train at, as WIDTHxHEIGHT in pixels, such as [32x32, 40x24, 24x40]: each image"
        " goes to that of the nearest aspect ratio; none: to the square that the training names",
    )

    @field_validator("buckets")
    @classmethod
    def _each_once(cls, buckets: tuple[ImageSize, ...]) -> tuple[ImageSize, ...]:
        if len(set(buckets)) < len(buckets):
            raise InputError("a size is named twice")
        return buckets


def run(work: Work) -> list[PartReceipt]:
    """Plan the tars, write them through the engine, then the index."""
    config: ShardConfig = work.config
    paths = captioned_parts(work)
    rows = _rows_by_bucket(paths, config.buckets)
    records = sum(map(sum, rows.values()))
    planned = plan_buckets(
        rows,
        seed=config.seed,
        holdout_fraction=config.holdout_fraction,
        samples_per_tar=config.samples_per_tar,
        tars_per_group=config.tars_per_group,
    )
    tasks = [_task(tar, paths) for tar in planned]
    features = _features(work)
    with work.progress.task(work.stage, records, "records") as advance:
        receipts = work.engine.map_parts(
            TarWorker,
            tasks,
            setup={"parts": work.parts, "config": config.pinned(features), "features": features},
            on_done=lambda receipt: advance(receipt.counts.in_),
            resources=worker_resources(work.engine.gpus(), {"shard.encoders": config.encoders})
            if config.precomputes
            else None,
        )
    index = _index(planned, receipts, features)
    for split in (TRAIN, HOLDOUT):
        if not index.samples(split):
            raise StageFailed(
                f"shard: the {split} split is empty ({records} captioned records, holdout_fraction"
                f" {config.holdout_fraction:g}); give more records or another shard.holdout_fraction"
            )
    work.info.update({split: index.samples(split) for split in (TRAIN, HOLDOUT)})
    if config.buckets:
        work.info["buckets"] = index.buckets
    entry = work.commit(INDEX_NAME, lambda path: path.write_text(index.to_json()))
    return [*receipts, PartReceipt(name="index", files=(entry,))]


def captioned_parts(work: Work) -> list[Path]:
    """The parts of recaption's output, in their planned order."""
    return work.input("recaption").files(f"{CAPTIONED_FOLDER}/")


class TarWorker:
    """Writes one tar from a group of parts. features: what the index will say of those in the tars."""

    def __init__(self, parts: Parts, config: ShardConfig, features: Features) -> None:
        self.parts, self.config = parts, config
        self.encoders = _worker_encoders(config, features) if config.precomputes else None

    def __call__(self, task: Any) -> PartReceipt:
        name: str = task["name"]
        if (finished := self.parts.finished(name)) is not None:
            return finished
        samples: dict[str, Sample] = {}
        rejects: list[Row] = []
        bucket = ImageSize.parse(task["bucket"]) if task["bucket"] else None
        for path in task["paths"]:
            for row in self._rows_of(task, path, bucket):
                rejection = _add(row, samples, self.encoders, bucket)
                if rejection is not None:
                    rejects.append(reject_row(NAME, row, rejection))
        in_order = [samples[key] for key in sorted(samples)]  # a key is a hash: this is a shuffle
        files: dict[str, Writer] = {f"{name}.tar": partial(_write_tar, samples=in_order)}
        if rejects:
            files |= rejects_file(name, rejects)
        return write_part(self.parts, name, files, kept=len(samples), rejects=rejects)

    def _rows_of(self, task: Any, path: str, bucket: ImageSize | None) -> Iterator[dict[str, Any]]:
        """The rows of a part that belong to this tar."""
        for batch in open_part(path).iter_batches(batch_size=READ_ROWS):
            keys, buckets = batch.column("key").to_pylist(), _buckets(batch, self.config.buckets)
            belongs = [
                nearest == bucket and self._belongs(task, key)
                for key, nearest in zip(keys, buckets, strict=True)
            ]
            yield from batch.filter(pa.array(belongs, pa.bool_())).to_pylist()

    def _belongs(self, task: Any, key: str) -> bool:
        if is_held_out(key, self.config.holdout_fraction) != (task["split"] == HOLDOUT):
            return False
        return number_in_group(key, task["group"], self.config.seed) == task["number"]


def _task(tar: PlannedTar, paths: list[Path]) -> dict[str, Any]:
    """A planned tar as the engine carries it."""
    return {
        "name": tar.name,
        "split": tar.split,
        "paths": [str(paths[part]) for part in tar.parts],
        "number": tar.number,
        "group": tar.group,
        "bucket": str(tar.bucket) if tar.bucket else None,
    }


def _rows(path: Path) -> int:
    """Rows of a part, from its footer, once its columns are those of the contract."""
    file = pq.ParquetFile(path)
    expected = [*captioned_schema(CAPTION_KINDS), *optional_fields(file.schema_arrow.names)]
    check_schema(file.schema_arrow, pa.schema(expected), str(path))
    return int(file.metadata.num_rows)


def _rows_by_bucket(paths: Sequence[Path], buckets: Sequence[ImageSize]) -> dict[ImageSize | None, list[int]]:
    """Rows of each part in each bucket; without buckets under None, from the footers alone."""
    rows = [_rows(path) for path in paths]
    if not buckets:
        return {None: rows}
    counts = [Counter(_buckets(pq.read_table(path, columns=SIZE_COLUMNS), buckets)) for path in paths]
    return {bucket: [count[bucket] for count in counts] for bucket in buckets}


def _buckets(rows: pa.Table | pa.RecordBatch, buckets: Sequence[ImageSize]) -> Iterator[ImageSize | None]:
    """The bucket of each row; None without buckets."""
    if not buckets:
        yield from repeat(None, rows.num_rows)
        return
    for height, width in zip(*(rows.column(name).to_pylist() for name in SIZE_COLUMNS), strict=True):
        yield nearest_bucket(ImageSize(height, width), buckets)


def _features(work: Work) -> Features:
    """What the encoders of the config are; nothing without any.

    Raises InputError where there is none such, StageFailed where it is another than some tars have: what lies
    at a path, or the branch of an id, may have changed since a run that was killed.
    """
    config: ShardConfig = work.config
    if not config.precomputes:
        return Features()
    from components.shards.precompute import Encoders

    features = Encoders.load(config.latents, config.texts, "cpu", config.buckets).features
    work.info["features"] = features.as_dict()
    begun = work.scratch / BEGUN
    if not begun.exists():
        write_bytes(begun, json.dumps(features.as_dict()).encode())
    elif json.loads(begun.read_bytes()) != features.as_dict():
        raise StageFailed(
            "shard: an encoder of its config has changed since tars were made with it; name its revision, and"
            f" remove {work.out} to begin again"
        )
    return features


def _worker_encoders(config: ShardConfig, expected: Features) -> "Encoders":
    """The encoders in a worker. Raises StageFailed where they are not those that the driver found."""
    import torch

    from components.shards.precompute import Encoders

    torch.set_num_threads(1)  # a feature's last bits depend on it; workers share the cores anyway
    device = config.encoders.resolve_device("shard.encoders")
    encoders = Encoders.load(config.latents, config.texts, device)
    if not encoders.features.same(expected):
        raise StageFailed(
            "shard: a worker found other encoders than the command did; give models by id and revision, or by"
            " a path that every node shares"
        )
    return encoders


def _add(
    row: Row, samples: dict[str, Sample], encoders: "Encoders | None", bucket: ImageSize | None
) -> Rejection | None:
    """Add a record to the samples, or say why it cannot be one."""
    image, key = row["image"] or b"", row["key"]
    extension = image_extension(image)
    if extension is None:
        return Rejection(Reason.IMAGE_FORMAT, "neither JPEG, PNG nor WebP")
    if key in samples:
        return Rejection(Reason.DUPLICATE, "the key of another record of this tar")
    sample = Sample(key, image, extension, {k: v for k, v in row.items() if k != "image"})
    if encoders is not None:
        files = encoders.of(sample, bucket)
        if isinstance(files, Rejection):
            return files
        sample = replace(sample, features=files)
    samples[key] = sample
    return None


def _write_tar(path: Path, samples: list[Sample]) -> None:
    with path.open("wb") as stream:
        write_tar(stream, samples)


def _index(planned: list[PlannedTar], receipts: list[PartReceipt], features: Features) -> ShardIndex:
    """What the tars' receipts say, as the index."""
    shards = []
    for tar, receipt in zip(planned, receipts, strict=True):
        file = next(file for file in receipt.files if file.path == f"{tar.name}.tar")
        shards.append(
            Shard(
                name=file.path,
                split=tar.split,
                bytes=file.bytes,
                sha256=file.sha256,
                samples=receipt.counts.kept,
                bucket=tar.bucket,
            )
        )
    return ShardIndex(shards=tuple(shards), latents=features.latents, texts=features.texts)


STAGE = Stage(name=NAME, version=1, config_type=ShardConfig, inputs=("recaption",), run=run)
