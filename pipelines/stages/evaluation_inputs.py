"""What evaluate measures with: the prompts, the models, the judge, the held-out images, and their protocol.

Each is made when it is first needed, so for a part that is finished no model is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice

import numpy as np

from components.evaluation.measure import (
    EvalPrompt,
    MeasuredModel,
    caption_prompts,
    generate_images,
    measure,
    reference_features,
    toy_prompts,
)
from components.evaluation.metrics import Features
from components.generation.generator import Generator
from components.judge.judge import Judge
from components.randomness import derive_seed
from components.shards.index import HOLDOUT, INDEX_NAME
from components.shards.reader import read_split
from components.shards.writer import Sample
from components.toyworld.scorer import score_true_renders
from pipelines.errors import StageFailed
from pipelines.stage import Input, Work
from pipelines.stages.evaluate_config import EvaluateConfig
from pipelines.stages.model_runtime import ModelRuntime, judge_name, load_judge
from pipelines.store.receipts import json_digest

STAGES_OF = {"teacher": "train", "student": "distill"}  # model -> the stage that made it
MODEL = "model"  # the folder of it in that stage's output
SCORER_VERSION = 1  # of how images are scored; numbers of two versions do not compare
JUDGE_SETTING = "evaluate.judge"  # in the config
WARM_UP = 4  # images generated before the clock starts: first calls allocate


@dataclass
class EvaluationInputs:
    """What every model is measured with."""

    work: Work
    config: EvaluateConfig
    _loaded: dict[str, Generator] = field(default_factory=dict)

    def measure(self, model: str, steps: int, on_images: Callable[[int], object]) -> MeasuredModel:
        """Generate an image of every prompt with one model and measure the images."""
        generator = self._generator(model)
        generator.generate(self.captions[:WARM_UP], steps=1)
        generated = generate_images(
            generator,
            self.captions,
            steps=steps,
            seed=self.config.seed,
            guidance=self.config.guidance if model == "teacher" else None,
            batch_size=self.config.batch_size,
            on_images=on_images,
        )
        return measure(
            generated, self.prompts, model=model, steps=steps, judge=self.judge, reference=self.reference
        )

    def scorer_accuracy(self) -> dict[str, float]:
        """The scorer's own accuracy on true renders; empty where no scorer covers the domain."""
        if self.config.domain != "toy":
            return {}
        seed = derive_seed(self.config.seed, "scorer")
        return score_true_renders(self.config.prompts_per_category, self.side, seed)

    @cached_property
    def prompts(self) -> list[EvalPrompt]:
        """The held-out prompts. Raises StageFailed where the held-out records have too few captions."""
        if self.config.domain == "toy":
            return toy_prompts(self.config.prompts_per_category, self.config.seed)
        prompts = caption_prompts(self.held_out, self.config.prompts)
        if len(prompts) < 2:
            raise StageFailed("evaluate: the held-out records have no two different captions; see recaption")
        return prompts

    @cached_property
    def captions(self) -> list[str]:
        """What every model generates from: the prompts upsampled, as for any user, or as they are."""
        texts = [prompt.text for prompt in self.prompts]
        if not self.config.upsample:
            return texts
        upsampled = self._generator("student").upsample(texts, seed=self.config.seed)
        return [prompt.caption for prompt in upsampled]

    @property
    def kept(self) -> set[int]:
        """Indexes of the prompts whose images are kept: evenly over the list, hence over the categories."""
        count = min(self.config.shown, len(self.prompts))
        return {round(i) for i in np.linspace(0, len(self.prompts) - 1, count).tolist()}

    @property
    def protocol(self) -> dict[str, str]:
        """Digests of the prompts, and of all that measures: what two evaluations must share to compare."""
        prompts = json_digest(
            [
                [[prompt.text, prompt.category] for prompt in self.prompts],
                self.config.seed,
                self.config.guidance,
                self.config.upsample,
                SCORER_VERSION,
            ]
        )
        shards = [shard.digest for shard in self.work.inputs["shard"]]
        judge = _judge_digest(self.work.input("annotators"))
        dtype = self.config.judge.resolve(JUDGE_SETTING).dtype
        precision = [] if dtype == "float32" else [dtype]  # as it was before there was a choice
        reference = json_digest([prompts, judge, shards, self.config.reference_images, *precision])
        return {"prompts_digest": prompts, "reference_digest": reference}

    @cached_property
    def held_out(self) -> list[Sample]:
        """Held-out records of every snapshot's shards, as many as are needed."""
        indexes = [shard.path / INDEX_NAME for shard in self.work.inputs["shard"]]
        records = chain.from_iterable(read_split(index, HOLDOUT) for index in indexes)
        held_out = list(islice(records, max(self.config.reference_images, self.config.prompts)))
        if len(held_out) < 2:
            raise StageFailed(
                f"evaluate: {len(held_out)} held-out records in {indexes[0].parent}, and two or more are"
                " needed; give a larger corpus or a larger shard.holdout_fraction"
            )
        return held_out

    @cached_property
    def judge(self) -> Judge:
        name = judge_name(self.work.input("annotators"))
        return load_judge(name, self.config.judge, JUDGE_SETTING)

    @cached_property
    def side(self) -> int:
        """Pixels along a side of a generated image."""
        return self._generator("student").image_size

    @cached_property
    def reference(self) -> Features:
        """The judge's features of the held-out images."""
        return reference_features(self.judge, self.held_out[: self.config.reference_images], self.side)

    def _generator(self, model: str) -> Generator:
        """The model that train or distill saved."""
        if model not in self._loaded:
            device = ModelRuntime(device=self.config.device).resolve("evaluate").device
            folder = self.work.input(STAGES_OF[model]).path / MODEL
            self._loaded[model] = Generator.load(folder, device, self.config.batch_size)
        return self._loaded[model]


def _judge_digest(annotators: Input) -> str:
    """Of the judge alone: another captioner does not change what is measured."""
    files = annotators.receipt.files if annotators.receipt else ()
    judge = [[entry.path, entry.sha256] for entry in files if entry.path.startswith("judge/")]
    return json_digest([judge]) if judge else annotators.digest
