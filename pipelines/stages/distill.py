"""distill: a consistency model from the teacher, its guidance absorbed: one network evaluation an image.

    HOME/distill/<fingerprint>/model/{config.json, model.safetensors, tokenizer.json, upsampler/}, curve.json

The training loop, its data and its checkpoints are train's (training_run.py); only the loss is another. With
`teacher` set, the student has that one's architecture, encoders and weights to start from.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from components.config_field import added_field
from components.distillation.config import ConsistencyConfig
from components.training.config import OptimizerConfig
from pipelines.stage import Stage, Work
from pipelines.stages.training_config import LearningConfig
from pipelines.store.receipts import MODEL, PartReceipt

if TYPE_CHECKING:
    from components.generation.model_folder import Model
    from pipelines.stages.training_run import TrainingTask


class DistillConfig(LearningConfig):
    """The student: how the teacher's path is cut, and how long it learns."""

    images: int = Field(16_000, gt=0, description="images to see in all")
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4, muon_learning_rate=2e-3)
    consistency: ConsistencyConfig = ConsistencyConfig()
    teacher: str | None = added_field(
        None,
        description="folder of another teacher than train's: a model folder, or an SD3 pipeline of diffusers",
    )


def run(work: Work) -> list[PartReceipt]:
    """Start from the teacher's averaged weights, distill, save the student's averaged weights."""
    from components.conditioning.identity import digest, parts_of_weights
    from components.generation.diffusers_pipeline import load_teacher
    from components.generation.model_folder import Model, ModelCard
    from pipelines.stages.training_run import indexes, save_trained, train_tracked

    config: DistillConfig = work.config
    shards = indexes(work)
    folder = Path(config.teacher) if config.teacher else work.input("train").path / MODEL
    teacher = load_teacher(folder)
    if config.teacher:
        work.info["teacher"] = digest(*parts_of_weights(teacher.network.state_dict()))
    task = _task_of(teacher, config, shards, 0, 1)
    trained = train_tracked(work, task, partial(_make_task, folder, config, shards))
    assert isinstance(trained.ema, type(teacher.network))
    card = ModelCard(
        kind="consistency",
        network=teacher.card.network,
        dit=teacher.card.dit,
        diffusion=teacher.card.diffusion,
        text=teacher.card.text,
        autoencoder=teacher.card.autoencoder,
        steps=1,
        guidance=config.consistency.guidance,
        images_seen=trained.curve[-1].images_seen,
    )
    model = Model(trained.ema, teacher.encoder, card, teacher.upsampler, teacher.autoencoder)
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
    import copy

    from components.distillation.consistency import consistency_loss
    from pipelines.stages.training_run import TrainingTask, batches, caption_loader

    encoder, autoencoder = teacher.encoder, teacher.autoencoder
    loader = caption_loader(shards, config, teacher.image_size, rank, world_size)
    return TrainingTask(
        network=copy.deepcopy(teacher.network).requires_grad_(True),
        loss=consistency_loss(config.consistency, teacher.denoiser, encoder([""])),
        data=lambda images_seen: batches(loader, encoder, autoencoder, images_seen),
        records=loader.samples,
    )


STAGE = Stage(name="distill", version=2, config_type=DistillConfig, inputs=("train", "shard"), run=run)
