"""distill: a consistency model from the teacher, its guidance absorbed: one network evaluation an image.

    HOME/distill/<fingerprint>/model/{config.json, model.safetensors, tokenizer.json}, curve.json

The training loop, its data and its checkpoints are those of train (learning.py); only the loss is another.
"""

from pydantic import Field

from components.captioning.blend import Blend
from components.distillation.config import ConsistencyConfig
from components.training.config import OptimizerConfig, TrainingConfig
from pipelines.receipts import PartReceipt
from pipelines.stage import Stage, StageConfig, Work
from pipelines.train import MODEL


class DistillConfig(TrainingConfig, StageConfig):
    """The student: how the teacher's path is cut, and how long it learns."""

    images: int = Field(16_000, gt=0, description="images to see in all")
    seed: int = Field(0, ge=0)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4, muon_learning_rate=2e-3)
    consistency: ConsistencyConfig = ConsistencyConfig()
    blend: Blend = Blend()
    cache_mb: int = Field(1024, ge=0, description="decoded images kept in memory, MiB")


def run(work: Work) -> list[PartReceipt]:
    """Start from the teacher's averaged weights, distill, save the student's averaged weights."""
    import copy

    from components.diffusion.dit import DiT
    from components.distillation.consistency import consistency_loss
    from components.generation.model_folder import Model, ModelCard, load_model
    from pipelines.learning import batches, caption_loader, save_trained, train_tracked

    config: DistillConfig = work.config
    teacher = load_model(work.input("train").path / MODEL)
    student = copy.deepcopy(teacher.network).requires_grad_(True)
    shards, size = work.inputs["shard"], teacher.card.dit.image_size
    loader = caption_loader(shards, config, size, config.blend)
    trained = train_tracked(
        work,
        config,
        student,
        consistency_loss(config.consistency, teacher.network, teacher.encoder([""])),
        lambda seen: batches(loader, teacher.encoder, seen),
    )
    assert isinstance(trained.ema, DiT)
    card = ModelCard(
        kind="consistency",
        dit=teacher.card.dit,
        text=teacher.card.text,
        steps=1,
        guidance=config.consistency.guidance,
        images_seen=trained.curve[-1].images_seen,
    )
    return save_trained(work, Model(trained.ema, teacher.encoder, card), trained, loader.samples)


STAGE = Stage(name="distill", version=1, config_type=DistillConfig, inputs=("train", "shard"), run=run)
