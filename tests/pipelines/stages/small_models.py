"""What the evaluate stage is tested on: a judge and two models that were never trained, and their shards."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from components.conditioning.text import TextConfig, fit_text_encoder
from components.diffusion.dit import DiT, DiTConfig
from components.evaluation.measure import AS_IS, DEFAULT
from components.generation.model_folder import Model, ModelCard, save_model
from components.randomness import derive_seed
from components.shards.index import HOLDOUT, INDEX_NAME, TRAIN, Shard, ShardIndex, Split
from components.shards.writer import Sample, write_tar
from components.toyworld.captions import caption_long, caption_short
from components.toyworld.layout import draw_scene
from components.toyworld.prompts import FORMS
from components.toyworld.render import render
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.stage import Input, run_stage
from pipelines.stages.evaluate import STAGE, EvaluateConfig
from pipelines.store.receipts import Receipt
from tests.small_upsampler import small_upsampler

SIDE = 24
PER_FORM = 6
PROMPTS = PER_FORM * len(FORMS)
CONFIG = EvaluateConfig(
    prompts_per_form=PER_FORM,
    coverage_prompts=2,
    coverage_seeds=3,
    coverage_scenes=20,
    undistilled_steps=(1,),
    student_steps=(1, 2),
    shown=100,
    batch_size=5,
    reference_images=30,
    training_images=12,
)
RUNS = (("teacher", 2), ("undistilled", 1), ("student", 1), ("student", 2))
MODES = (DEFAULT, AS_IS)


@dataclass(frozen=True)
class StagesBefore:
    """Outputs of the stages before: a judge and two models that were never trained, and held-out records."""

    root: Path
    tracking_uri: str  # one database for all tests: making one takes seconds

    def inputs(self, *shards: str) -> dict[str, tuple[Input, ...]]:
        def one(name: str, folder: str) -> Input:
            return Input(name, str(self.root / folder), hashlib.sha256(folder.encode()).hexdigest())

        named = {name: (one(name, name),) for name in ("annotators", "train", "distill")}
        return {**named, "shard": tuple(one("shard", folder) for folder in shards or ("shard",))}

    def run(
        self,
        home: Path,
        config: EvaluateConfig = CONFIG,
        *,
        shards: tuple[str, ...] = (),
    ) -> Receipt:
        return run_stage(
            STAGE,
            config,
            self.inputs(*shards),
            home=home,
            snapshot="default",
            engine=Engine(),
            progress=Progress(quiet=True),
            tracking_uri=self.tracking_uri,
        )


def write_model(folder: Path, kind: str, seed: int) -> None:
    text = TextConfig(vocabulary=300, max_length=32)
    encoder = fit_text_encoder(text, ["a red circle above a blue square", "three green stars"])
    torch.manual_seed(seed)
    dit = DiTConfig(image_size=SIDE, patch=8, width=16, depth=1, heads=2, vocabulary=encoder.vocabulary)
    network = DiT(dit)
    for (
        parameter
    ) in network.parameters():  # with zero-initialised gates every prompt would give the same image
        torch.nn.init.normal_(parameter, std=0.2)
    card = ModelCard(kind=kind, dit=dit, text=text, steps=2, guidance=2.0, images_seen=1)
    folder.mkdir(parents=True)
    pairs = [("a red circle", "a large red circle"), ("three green stars", "three small green stars")]
    save_model(folder, Model(network, encoder, card, small_upsampler(pairs, captions=320)))


def write_shards(folder: Path, held_out: range, training: range) -> None:
    folder.mkdir()
    shards = (write_shard(folder, TRAIN, training), write_shard(folder, HOLDOUT, held_out))
    (folder / INDEX_NAME).write_text(ShardIndex(shards=shards).to_json())


def write_shard(folder: Path, split: Split, numbers: range) -> Shard:
    samples = []
    for number in numbers:
        scene = draw_scene(np.random.default_rng(derive_seed(5, "record", number)))
        data = io.BytesIO()
        render(scene, 24).save(data, "PNG")
        meta = {"caption_short": caption_short(scene), "caption_long": caption_long(scene)}
        samples.append(
            Sample(hashlib.sha256(str(number).encode()).hexdigest()[:32], data.getvalue(), "png", meta)
        )
    tar = folder / f"{split}-00000.tar"
    with tar.open("wb") as stream:
        write_tar(stream, sorted(samples, key=lambda sample: sample.key))
    content = tar.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Shard(name=tar.name, split=split, bytes=len(content), sha256=digest, samples=len(samples))
