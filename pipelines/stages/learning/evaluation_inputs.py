"""What evaluate measures with: the prompts, the models, the judge, the held-out images, and their protocol.

Each is made when it is first needed. The stage measures a teacher and its student; `straightshot evaluate`
measures any one model with the same.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

import numpy as np

from components.errors import InputError
from components.evaluation.coverage import coverage_floor, coverage_prompts
from components.evaluation.measure import (
    EvaluationData,
    MeasuredModel,
    ModelRun,
    OnImages,
    UpsampledPrompts,
    measure,
)
from components.evaluation.prompts import EvalPrompt, caption_prompts, toy_prompts
from components.evaluation.reference import make_reference, memorisation_floor, true_render_floors
from components.evaluation.results import (
    PROMPTS_DIGEST,
    REFERENCE_DIGEST,
    STUDENT,
    TEACHER,
    UNDISTILLED,
)
from components.generation.generator import Generator
from components.generation.model_folder import OWN_FILES
from components.image_size import ImageSize
from components.judge.judge import Judge
from components.randomness import derive_seed
from components.shards.index import HOLDOUT, INDEX_NAME, TRAIN, Split
from components.shards.reader import read_split
from components.shards.writer import Sample
from components.toyworld.scorer import score_true_renders
from pipelines.errors import StageFailed
from pipelines.stage import Input, Work
from pipelines.stages.learning.evaluate_config import EvaluateConfig
from pipelines.stages.model_runtime import ModelRuntime, judge_name, load_judge
from pipelines.store.receipts import MODEL, json_digest, sha256_file

STAGES_OF = {TEACHER: "train", STUDENT: "distill"}  # model -> the stage that made it
SCORER_VERSION = 4  # of how images are scored and scenes are drawn; numbers of two versions do not compare
JUDGE_SETTING = "evaluate.judge"  # in the config
MODEL_FREE = ("data", "prompts", "held_out", "judge")  # of EvaluationInputs, at one size of images
WARM_UP = 4  # images generated before the clock starts: first calls allocate


@dataclass
class EvaluationInputs:
    """What every model is measured with.

    folders: the model folder of the teacher, of the student, or of both.
    """

    config: EvaluateConfig
    annotators: Input
    shards: Sequence[Input]
    folders: Mapping[str, Path]
    _generators: dict[str, Generator] = field(default_factory=dict)
    _upsampled: dict[str, UpsampledPrompts] = field(default_factory=dict)

    @staticmethod
    def of_stage(work: Work) -> "EvaluationInputs":
        """Those of the stage: both models, as train and distill saved them."""
        folders = {model: work.input(stage).path / MODEL for model, stage in STAGES_OF.items()}
        return EvaluationInputs(work.config, work.input("annotators"), work.inputs["shard"], folders)

    @staticmethod
    def of_model(
        config: EvaluateConfig, annotators: Input, shards: Sequence[Input], folder: Path
    ) -> "EvaluationInputs":
        """Those of one model alone: a student if its card says so, else a teacher."""
        generator = _load(folder, config)
        name = STUDENT if generator.model.card.is_student else TEACHER
        return EvaluationInputs(config, annotators, shards, {name: folder}, {name: generator})

    def with_model(self, folder: Path) -> "EvaluationInputs":
        """The same of another model, with what is made already and depends on no model (judge, reference)."""
        other = EvaluationInputs.of_model(self.config, self.annotators, self.shards, folder)
        if other.side == self.side:
            made = {name: self.__dict__[name] for name in MODEL_FREE if name in self.__dict__}
            other.__dict__.update(made)  # where cached_property keeps them
        return other

    def own_steps(self, model: str) -> int:
        """The steps that a model is sampled with by default."""
        return self._generator(model).model.card.steps

    @property
    def runs(self) -> list[tuple[str, int]]:
        """What is measured: (model, steps), in the order of metrics.json."""
        steps: list[tuple[str, int]] = []
        if TEACHER in self.folders:
            own = (self.own_steps(TEACHER),)
            steps += [(TEACHER, count) for count in self.config.teacher_steps or own]
            steps += [(UNDISTILLED, count) for count in self.config.undistilled_steps]
        if STUDENT in self.folders:
            steps += [(STUDENT, count) for count in self.config.student_steps]
        return steps

    def measure(self, model: str, steps: int, on_images: OnImages) -> MeasuredModel:
        """Generate every image of one model at one number of steps and measure them."""
        source = STUDENT if model == STUDENT else TEACHER
        generator = self._generator(source)
        guidance = {TEACHER: self.config.guidance, UNDISTILLED: 1.0, STUDENT: None}[model]
        upsampled = self._upsampled_by(source)
        generator.generate(upsampled.captions[:WARM_UP], steps=1)
        return measure(ModelRun(model, generator, steps, guidance), self.data, upsampled, on_images)

    def scorer_accuracy(self) -> dict[str, float]:
        """The scorer's own accuracy on true renders; empty where no scorer covers the domain."""
        if self.config.domain != "toy":
            return {}
        seed = derive_seed(self.config.seed, "scorer")
        return score_true_renders(self.config.prompts_per_form, self.side, seed)

    def floors(self) -> dict[str, float]:
        """What sampling alone gives of the metrics: of true renders, and of held-out images ("nearest")."""
        floors = {"nearest": memorisation_floor(self.data.reference)}
        if self.config.domain != "toy":
            return floors
        seed = self.config.seed
        floors["coverage"] = coverage_floor(self.data.coverage, self.config.coverage_seeds, seed)
        return {**floors, **true_render_floors(self.data.judge, self.data.reference, self.side, seed)}

    @cached_property
    def data(self) -> EvaluationData:
        """What is the same for every model. Raises StageFailed where the shards have too few records."""
        config = self.config
        held_out, training = self.held_out[: config.reference_images], self._records(TRAIN)
        try:
            reference = make_reference(
                self.judge, held_out, islice(training, config.training_images), self.side
            )
        except InputError as error:
            raise StageFailed(f"evaluate: {error}") from error
        coverage = []
        if config.domain == "toy":
            coverage = coverage_prompts(config.coverage_prompts, config.coverage_scenes, config.seed)
        return EvaluationData(
            prompts=self.prompts,
            reference=reference,
            coverage=coverage,
            coverage_seeds=config.coverage_seeds,
            judge=self.judge,
            seed=config.seed,
            batch_size=config.batch_size,
        )

    @cached_property
    def prompts(self) -> list[EvalPrompt]:
        """The held-out prompts. Raises StageFailed where the held-out records have too few captions."""
        if self.config.domain == "toy":
            return toy_prompts(self.config.prompts_per_form, self.config.seed)
        prompts = caption_prompts(self.held_out, self.config.prompts)
        if len(prompts) < 2:
            raise StageFailed("evaluate: the held-out records have no two different captions; see recaption")
        return prompts

    @property
    def shown(self) -> set[int]:
        """Indexes of the prompts of the grid: evenly over the list, hence over the forms."""
        count = min(self.config.shown, len(self.prompts))
        return {round(i) for i in np.linspace(0, len(self.prompts) - 1, count).tolist()}

    @property
    def protocol(self) -> dict[str, str]:
        """Digests of all that verdicts on prompts depend on, and of that with all else that measures.

        Numbers of two evaluations compare only where they share them, and at the same steps. What a model
        brings (its upsampler, its own steps and guidance) is not in them.
        """
        config = self.config
        prompts = json_digest(
            {
                "prompts": [[prompt.text, prompt.form, prompt.category] for prompt in self.prompts],
                "coverage": [config.coverage_prompts, config.coverage_seeds, config.coverage_scenes],
                "seed": config.seed,
                "guidance": config.guidance,
                "precision": self._last_generator.precision,
                "resolution": self.side,
                "scorer": SCORER_VERSION,
            }
        )
        reference = json_digest(
            {
                "prompts": prompts,
                "judge": _judge_digest(self.annotators),
                "dtype": config.judge.resolve(JUDGE_SETTING).dtype,
                "shards": [shard.digest for shard in self.shards],
                "images": [config.reference_images, config.training_images],
            }
        )
        return {PROMPTS_DIGEST: prompts, REFERENCE_DIGEST: reference}

    @cached_property
    def held_out(self) -> list[Sample]:
        """Held-out records of every snapshot's shards, as many as are needed."""
        most = max(self.config.reference_images, self.config.prompts)
        held_out = list(islice(self._records(HOLDOUT), most))
        if len(held_out) < 2:
            raise StageFailed(
                f"evaluate: {len(held_out)} held-out records in {self.shards[0].path}, and two or more are"
                " needed; give a larger corpus or a larger shard.holdout_fraction"
            )
        return held_out

    @cached_property
    def judge(self) -> Judge:
        return load_judge(judge_name(self.annotators), self.config.judge, JUDGE_SETTING)

    @property
    def side(self) -> int:
        """Pixels along a side of a generated image."""
        return self._last_generator.image_size

    def _records(self, split: Split) -> Iterator[Sample]:
        indexes = [shard.path / INDEX_NAME for shard in self.shards]
        return chain.from_iterable(read_split(index, split) for index in indexes)

    @property
    def _last_generator(self) -> Generator:
        """One for what all have in common."""
        return self._generator(list(self.folders)[-1])

    def _generator(self, model: str) -> Generator:
        """The teacher or the student, loaded once."""
        if model not in self._generators:
            self._generators[model] = _load(self.folders[model], self.config)
        return self._generators[model]

    def _upsampled_by(self, model: str) -> UpsampledPrompts:
        """The prompts by the model's own upsampler, which a student has of its teacher: then made once."""
        name = _digest_beside_weights(self.folders[model])
        if name not in self._upsampled:
            texts, started = [prompt.text for prompt in self.prompts], time.perf_counter()
            results = self._generator(model).upsample(texts, seed=self.config.seed)
            self._upsampled[name] = UpsampledPrompts(
                tuple(result.caption for result in results),
                tuple(result.how for result in results),
                time.perf_counter() - started,
            )
        return self._upsampled[name]


def _load(folder: Path, config: EvaluateConfig) -> Generator:
    device = ModelRuntime(device=config.device).resolve("evaluate").device
    generator = Generator.load(folder, device, config.batch_size, config.precision)
    if (square := ImageSize.square(generator.image_size)) not in generator.sizes:
        raise StageFailed(
            f"evaluate: images of {square} are measured, and the model was trained at"
            f" {', '.join(map(str, generator.sizes))}; add {square} to shard.buckets"
        )
    return generator


def _digest_beside_weights(folder: Path) -> str:
    """Of a model folder's files but the network's and its card: the upsampler's, the text encoder's."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    entries = zip(names, files, strict=True)
    return json_digest([[name, sha256_file(path)] for name, path in entries if name not in OWN_FILES])


def _judge_digest(annotators: Input) -> str:
    """Of the judge alone: another captioner does not change what is measured."""
    files = annotators.receipt.files if annotators.receipt else ()
    judge = [[entry.path, entry.sha256] for entry in files if entry.path.startswith("judge/")]
    return json_digest([judge]) if judge else annotators.digest
