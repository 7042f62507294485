"""train: a text-conditioned rectified-flow DiT, from the shards of all chosen snapshots.

    HOME/train/<fingerprint>/model/{config.json, model.safetensors, tokenizer.json}, curve.json

Runs in this process under Accelerate; resumes from its last whole checkpoint, to the bit.
"""

from pydantic import Field

from components.captioning.blend import Blend
from components.conditioning.config import TextConfig
from components.diffusion.config import DiTConfig
from components.training.config import FlowLossConfig, TrainingConfig
from pipelines.receipts import PartReceipt
from pipelines.stage import Stage, StageConfig, Work

CURVE, MODEL = "curve.json", "model"  # what the output holds; distill's too


class TrainConfig(TrainingConfig, StageConfig):
    """The teacher: its network, its data, its loss, its training."""

    images: int = Field(100_000, gt=0, description="images to see in all")
    seed: int = Field(0, ge=0)
    network: DiTConfig = DiTConfig()
    text: TextConfig = TextConfig()
    flow: FlowLossConfig = FlowLossConfig()
    blend: Blend = Blend()
    cache_mb: int = Field(1024, ge=0, description="decoded images kept in memory, MiB")
    steps: int = Field(50, gt=0, description="Euler steps that the model is sampled with by default")
    guidance: float = Field(3.0, ge=1, description="guidance scale that it is sampled with by default")


def run(work: Work) -> list[PartReceipt]:
    """Fit the vocabulary, train, save the averaged weights."""
    from components.conditioning.text import fit_text_encoder
    from components.diffusion.dit import DiT
    from components.generation.model_folder import Model, ModelCard
    from components.training.flow_loss import flow_loss
    from pipelines.learning import (
        batches,
        build_network,
        caption_loader,
        captions,
        save_trained,
        train_tracked,
    )

    config: TrainConfig = work.config
    shards = work.inputs["shard"]
    encoder = fit_text_encoder(config.text, captions(shards))
    network = build_network(config, encoder)
    loader = caption_loader(shards, config, config.network.image_size, config.blend)
    trained = train_tracked(
        work,
        config,
        network,
        flow_loss(config.flow, encoder([""])),
        lambda seen: batches(loader, encoder, seen),
    )
    assert isinstance(trained.ema, DiT)
    card = ModelCard(
        kind="flow",
        dit=network.config,
        text=config.text,
        steps=config.steps,
        guidance=config.guidance,
        images_seen=trained.curve[-1].images_seen,
    )
    return save_trained(work, Model(trained.ema, encoder, card), trained, loader.samples)


STAGE = Stage(name="train", version=1, config_type=TrainConfig, inputs=("shard",), run=run)
