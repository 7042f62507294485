"""distill: a student that needs one network evaluation an image, the teacher's guidance absorbed.

    HOME/distill/<fingerprint>/model/{config.json, model.safetensors, tokenizer.json, upsampler/}, curve.json

A consistency model from the teacher's path, its distribution matched too where asked, or from the data alone,
or a MeanFlow (consistency.method). The training loop, its checkpoints and its data are train's
(training_run.py, training_batches.py); only the loss is another. With `teacher` set, the student has that
one's architecture, encoders and weights to start from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from components.config_field import added_field
from components.distillation.config import ConsistencyConfig
from components.errors import InputError
from components.training.config import OptimizerConfig
from pipelines.stage import TEACHER, Stage, Work
from pipelines.stages.learning.training_config import LearningConfig
from pipelines.store.receipts import MODEL, PartReceipt

if TYPE_CHECKING:
    from components.diffusion.dit import DiT
    from components.diffusion.sd3_network import SD3Network
    from components.generation.model_folder import Model
    from components.training.loss import LossFunction
    from pipelines.stages.learning.training_run import TrainingTask


class DistillConfig(LearningConfig):
    """The student: what it learns from, and how long."""

    NOT_IN_FINGERPRINT: ClassVar[Mapping[str, Any]] = {**LearningConfig.NOT_IN_FINGERPRINT, TEACHER: True}

    images: int = Field(16_000, gt=0, description="images to see in all")
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4, muon_learning_rate=2e-3)
    consistency: ConsistencyConfig = ConsistencyConfig()
    teacher: str | None = added_field(
        None,
        description="folder of another teacher than train's: a model folder, or an SD3 pipeline of diffusers;"
        " the digest of its files is an input",
    )
    start: Literal["teacher", "scratch"] = added_field(
        "teacher", description="its first weights: the teacher's, or untrained ones of the run's seed"
    )
    tuned_steps: tuple[Annotated[int, Field(ge=1, le=8)], ...] = added_field(
        (), description="numbers of steps whose times are tuned after the training, such as [2, 4]"
    )
    tuning_images: int = added_field(256, ge=2, description="training images that they are tuned on")

    @model_validator(mode="after")
    def _lora_has_a_whole_model(self) -> Self:
        if self.lora is not None and (self.start == "scratch" or self.consistency.method == "mean_flow"):
            raise InputError(
                "lora adapts the teacher's weights, and start=scratch and consistency.method=mean_flow have"
                " weights of their own to train; leave lora out"
            )
        return self


def run(work: Work) -> list[PartReceipt]:
    """Train the student, save its averaged weights, and with them the times of a few steps where asked."""
    from components.diffusion.dit import DiT
    from components.distillation.matching import MatchedStudent
    from components.generation.diffusers_pipeline import load_teacher
    from components.generation.model_folder import Model, ModelCard, listed_sizes
    from components.generation.tuned_times import tune_student
    from pipelines.stages.learning.training_run import indexes, save_trained, train_tracked

    config: DistillConfig = work.config
    shards = indexes(work)
    folder = work.input(TEACHER).path if config.teacher else work.input("train").path / MODEL
    teacher = load_teacher(folder)
    task = _task_of(teacher, config, shards, 0, 1)
    trained = train_tracked(work, task, partial(_make_task, folder, config, shards))
    student = trained.ema.student if isinstance(trained.ema, MatchedStudent) else trained.ema
    assert isinstance(student, type(teacher.network))
    card = ModelCard(
        kind="mean_flow" if config.consistency.method == "mean_flow" else "consistency",
        network=teacher.card.network,
        dit=student.config if isinstance(student, DiT) else teacher.card.dit,
        diffusion=teacher.card.diffusion,
        text=teacher.card.text,
        autoencoder=teacher.card.autoencoder,
        steps=1,
        guidance=config.consistency.guidance,
        images_seen=trained.curve[-1].images_seen,
        sizes=listed_sizes(task.sizes, teacher.image_size),
    )
    model = Model(student, teacher.encoder, card, teacher.upsampler, teacher.autoencoder)
    if config.tuned_steps:
        batches = islice(task.data(0), -(-config.tuning_images // config.batch_size))
        times = tune_student(model, batches, config.tuned_steps, config.seed)
        model = replace(model, card=card.model_copy(update={"times": times}))
    return save_trained(work, model, trained, task.records)


def _make_task(
    folder: Path, config: DistillConfig, shards: Sequence[Path], rank: int, world_size: int
) -> "TrainingTask":
    """What one process trains, from the teacher's folder."""
    from components.generation.diffusers_pipeline import load_teacher

    return _task_of(load_teacher(folder, upsampler=False), config, shards, rank, world_size)


def _task_of(
    teacher: "Model", config: DistillConfig, shards: Sequence[Path], rank: int, world_size: int
) -> "TrainingTask":
    from components.distillation.curriculum import target_halflife
    from components.distillation.matching import with_fake
    from pipelines.stages.learning.training_batches import batches, caption_loader
    from pipelines.stages.learning.training_run import TrainingTask

    encoder, autoencoder = teacher.encoder, teacher.autoencoder
    loader = caption_loader(shards, config, teacher.image_size, rank, world_size)
    for size in loader.sizes:
        teacher.size_of(size)
    student = _student(teacher, config)
    return TrainingTask(
        network=student if config.consistency.matching is None else with_fake(student, teacher.network),
        loss=_loss(teacher, config.consistency),
        data=lambda images_seen: batches(loader, encoder, autoencoder, images_seen),
        records=loader.samples,
        sizes=loader.sizes,
        target_halflife=target_halflife(config.consistency, config.images),
    )


def _student(teacher: "Model", config: DistillConfig) -> "DiT | SD3Network":
    """The network to train. A second time, which MeanFlow's has, is untrained and changes nothing.

    Raises InputError for what only a DiT can be.
    """
    import copy

    from components.diffusion.dit import DiT
    from components.randomness import seeded_weights

    second_time = config.consistency.method == "mean_flow"
    if config.start == "teacher" and not second_time:
        return copy.deepcopy(teacher.network).requires_grad_(True)
    if not isinstance(teacher.network, DiT):
        raise InputError(
            "distill: start=scratch and consistency.method=mean_flow make a DiT, and the teacher is a"
            f" {teacher.card.network}; leave both out"
        )
    with seeded_weights(config.seed, "student weights"):
        student = DiT(teacher.card.dit.model_copy(update={"second_time": second_time}))
    if config.start == "teacher":
        student.load_state_dict(student.state_dict() | teacher.network.state_dict())
    return student


def _loss(teacher: "Model", config: ConsistencyConfig) -> "LossFunction":
    """What the student learns. Raises InputError where it cannot be learned from this teacher."""
    from components.distillation.consistency import consistency_loss
    from components.distillation.matching import matched_loss
    from components.distillation.mean_flow import mean_flow_loss

    null = teacher.encoder([""])
    if config.method == "mean_flow":
        if teacher.card.diffusion.process != "rectified_flow":
            raise InputError(
                "distill: consistency.method mean_flow averages the velocity of rectified flow, and the"
                f" teacher's process is {teacher.card.diffusion.process}; set consistency.method to cd"
            )
        return mean_flow_loss(config, teacher.denoiser, null)
    metric = None
    if config.perceptual is not None:
        from components.autoencoding.perceptual import PerceptualDistance
        from components.captioning.captioner import Captioner
        from components.distillation.metrics import perceptual_metric

        distance = PerceptualDistance(Captioner.load(config.perceptual))
        metric = perceptual_metric(distance, teacher.autoencoder)
    loss = consistency_loss(config, teacher.denoiser, null, metric)
    return loss if config.matching is None else matched_loss(loss, config, teacher.denoiser, null)


STAGE = Stage(name="distill", version=2, config_type=DistillConfig, inputs=("train", "shard"), run=run)
