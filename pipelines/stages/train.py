"""train: a text-conditioned diffusion transformer, from the shards of all chosen snapshots.

    HOME/train/<fingerprint>/model/{config.json, model.safetensors, tokenizer.json, autoencoder.safetensors,
    upsampler/}, curve.json

Runs in this process under Accelerate, or with `workers` in several (execution/training_workers.py); resumes
from its last whole checkpoint, to the bit.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from components.autoencoding.config import AutoencoderFitConfig
from components.conditioning.config import LEARNED, TextConfig
from components.diffusion.config import DiffusionConfig, DiTConfig
from components.training.config import FlowLossConfig
from components.upsampling.prompt_upsampler_config import PromptUpsamplerConfig
from pipelines.stage import Stage, Work
from pipelines.stages.training_config import LearningConfig
from pipelines.store.receipts import PartReceipt

if TYPE_CHECKING:
    from components.conditioning.autoencoder import Autoencoder
    from pipelines.stages.training_run import TrainingTask


class TrainConfig(LearningConfig):
    """The teacher: its network and encoders, its process, its data, its loss, its training."""

    images: int = Field(100_000, gt=0, description="images to see in all")
    network: DiTConfig = DiTConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    text: TextConfig = TextConfig()
    autoencoder: AutoencoderFitConfig = AutoencoderFitConfig()
    upsampler: PromptUpsamplerConfig = PromptUpsamplerConfig()
    flow: FlowLossConfig = FlowLossConfig()
    steps: int = Field(50, gt=0, description="Euler steps that the model is sampled with by default")
    guidance: float = Field(3.0, ge=1, description="guidance scale that it is sampled with by default")


def run(work: Work) -> list[PartReceipt]:
    """Fit the vocabulary, the autoencoder and the upsampler, train, save the averaged weights."""
    from components.conditioning.text import fit_text_encoder
    from components.diffusion.dit import DiT
    from components.generation.model_folder import Model, ModelCard
    from components.shards.wanted_features import check_features
    from pipelines.stages.autoencoder_run import make_autoencoder
    from pipelines.stages.training_run import captions, indexes, save_trained, train_tracked
    from pipelines.stages.upsampler_run import make_upsampler

    config: TrainConfig = work.config
    shards = indexes(work)
    encoder = fit_text_encoder(config.text, captions(shards))
    learned = encoder if config.text.model == LEARNED else None
    autoencoder = make_autoencoder(work, shards)
    image_size = config.network.image_size * autoencoder.downscale
    if pretrained := check_features(shards, encoder, autoencoder, image_size).as_dict():
        work.info["encoders"] = pretrained
    upsampler = make_upsampler(work, shards)
    task = _make_task(config, shards, encoder, autoencoder, 0, 1)
    trained = train_tracked(work, task, partial(_make_task, config, shards, learned, autoencoder))
    assert isinstance(trained.ema, DiT)
    card = ModelCard(
        kind="flow",
        dit=trained.ema.config,
        diffusion=config.diffusion,
        text=config.text,
        autoencoder=config.autoencoder.card,
        steps=config.steps,
        guidance=config.guidance,
        images_seen=trained.curve[-1].images_seen,
    )
    model = Model(trained.ema, encoder, card, upsampler, autoencoder)
    return save_trained(work, model, trained, task.records)


def _make_task(
    config: TrainConfig,
    shards: Sequence[Path],
    encoder: Any,
    autoencoder: "Autoencoder",
    rank: int,
    world_size: int,
) -> "TrainingTask":
    """What one process trains. encoder: None to load the pretrained one that the config names."""
    from components.conditioning.text import fit_text_encoder
    from components.training.flow_loss import flow_loss
    from pipelines.stages.training_run import TrainingTask, batches, build_network, caption_loader

    encoder = encoder or fit_text_encoder(config.text, ())
    image_size = config.network.image_size * autoencoder.downscale
    loader = caption_loader(shards, config, image_size, rank, world_size)
    return TrainingTask(
        network=build_network(config, encoder, autoencoder),
        loss=flow_loss(config.flow, config.diffusion, encoder([""])),
        data=lambda images_seen: batches(loader, encoder, autoencoder, images_seen),
        records=loader.samples,
    )


# Of the annotators: the judge checks the upsampler, the captioner sees what the autoencoder draws.
INPUTS = ("annotators", "shard")
STAGE = Stage(name="train", version=3, config_type=TrainConfig, inputs=INPUTS, run=run)
