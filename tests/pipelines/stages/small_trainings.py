"""Tiny shards, and the train and distil stages run on them in seconds."""

import hashlib
import io
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from components.shards.index import INDEX_NAME, Shard, ShardIndex
from components.shards.writer import Sample, write_tar
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.stage import Input, run_stage
from pipelines.stages.distill import STAGE as DISTILL
from pipelines.stages.train import STAGE as TRAIN
from pipelines.store.receipts import Receipt

COLOURS = {"red": (220, 30, 30), "green": (20, 160, 60), "blue": (30, 60, 220), "grey": (128, 128, 128)}
SAMPLES = 36
TRAINING = {
    "images": 12 * 8,
    "batch_size": 8,
    "checkpoint_images": 4 * 8,
    "log_images": 3 * 8,
    "ema_halflife_images": 30,
}
NETWORK = {"image_size": 8, "patch": 4, "width": 32, "depth": 1, "heads": 2}
TEXT = {"vocabulary": 300, "max_length": 16}
UPSAMPLER = {
    "width": 16,
    "depth": 1,
    "heads": 1,
    "vocabulary": 300,
    "training": {"images": 48, "batch_size": 8, "checkpoint_images": 16, "ema_halflife_images": 0},
}
UPSAMPLER_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip


def shards(folder: Path, name: str = "shard", samples: int = SAMPLES) -> Input:
    """An output as the shard stage leaves it: two tars of plain colours, and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for number in range(2):
        rows = [sample(f"{name} {i}") for i in range(number, samples, 2)]
        stream = io.BytesIO()
        write_tar(stream, rows)
        data = stream.getvalue()
        tar = f"train-{number:05d}.tar"
        (folder / tar).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        listed.append(Shard(name=tar, split="train", bytes=len(data), sha256=sha256, samples=len(rows)))
    index = ShardIndex(shards=tuple(listed)).to_json()
    (folder / INDEX_NAME).write_text(index)
    return Input("shard", str(folder), hashlib.sha256(index.encode()).hexdigest())


def sample(name: str) -> Sample:
    colour = list(COLOURS)[int(name.rpartition(" ")[2]) % len(COLOURS)]
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), COLOURS[colour], np.uint8)).save(stream, "PNG")
    meta = {
        "alt_text": f"{colour}!",
        "caption_short": f"all {colour}",
        "caption_long": f"{colour}, everywhere",
    }
    return Sample(hashlib.sha256(name.encode()).hexdigest()[:32], stream.getvalue(), "png", meta)


def run(home: Path, stage, tracking: str | None, inputs: dict[str, tuple[Input, ...]], **settings) -> Receipt:
    return run_stage(
        stage,
        stage.config_type(**{**TRAINING, **settings}),
        inputs,
        home=home,
        snapshot="default",
        engine=Engine(),
        progress=Progress(quiet=True),
        tracking_uri=tracking,
    )


def run_train(home: Path, tracking: str | None, *snapshots: Input, **settings) -> Receipt:
    small = {"network": NETWORK, "text": TEXT, "upsampler": UPSAMPLER}
    return run(home, TRAIN, tracking, {"shard": snapshots}, **{**small, **settings})


def run_both(home: Path, tracking: str, shard: Input) -> tuple[Receipt, Receipt]:
    train = run_train(home, tracking, shard)
    teacher = Input("train", str(output(home, train)), train.digest, train)
    settings = {"consistency": {"intervals": 4}}
    return train, run(home, DISTILL, tracking, {"train": (teacher,), "shard": (shard,)}, **settings)


def output(home: Path, receipt: Receipt) -> Path:
    return home / receipt.stage / receipt.fingerprint


def contents(home: Path, receipt: Receipt) -> dict[str, bytes]:
    return {entry.path: (output(home, receipt) / entry.path).read_bytes() for entry in receipt.files}


def interrupted_after(images: int):
    """As Progress.task, with a Ctrl-C after so many images."""

    @contextmanager
    def task(self, name, total, unit):
        done = 0

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal done
            done += n
            if done >= images:
                raise KeyboardInterrupt

        yield advance

    return task
