"""train: a text-conditioned diffusion transformer, from the shards of all chosen snapshots.

    HOME/train/<fingerprint>/model/{config.json, model.safetensors, autoguide.safetensors, tokenizer.json,
    autoencoder.safetensors, upsampler/}, curve.json

Runs in this process under Accelerate, or with `workers` in several (execution/training_workers.py); resumes
from its last whole checkpoint, to the bit.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from components.autoencoding.config import AutoencoderFitConfig
from components.conditioning.config import LEARNED, TextConfig
from components.config_field import added_field
from components.diffusion.config import (
    DEFAULT_SAMPLER,
    AutoguideCard,
    AutoguideConfig,
    DiffusionConfig,
    DiTConfig,
    SamplerConfig,
)
from components.errors import InputError
from components.training.config import FlowLossConfig, ReflowConfig
from components.upsampling.prompt_upsampler_config import PromptUpsamplerConfig
from pipelines.stage import Stage, Work
from pipelines.stages.learning.training_config import LearningConfig
from pipelines.store.receipts import PartReceipt

if TYPE_CHECKING:
    from components.conditioning.autoencoder import Autoencoder
    from components.conditioning.text import TextEncoder
    from components.diffusion.dit import DiT
    from pipelines.stages.learning.training_run import TrainingTask

CAPTIONS_COUNTED = 20_000  # the first ones, to see how many are longer than what is read


class TrainConfig(LearningConfig):
    """The teacher: its network and encoders, its process, its data, its loss, its training."""

    NOT_IN_FINGERPRINT: ClassVar[Mapping[str, Any]] = {**LearningConfig.NOT_IN_FINGERPRINT, "init": True}

    images: int = Field(100_000, gt=0, description="images to see in all")
    init: str | None = Field(
        None,
        description="a model to start from: a folder, models:/... or champion; the digest of its files is an"
        " input. What network, diffusion, text and autoencoder leave open is as the model has it",
    )
    reflow: ReflowConfig | None = added_field(
        None, description="train on pairs of noise and image by the initial model, for straighter paths"
    )
    network: DiTConfig = DiTConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    text: TextConfig = TextConfig()
    autoencoder: AutoencoderFitConfig = AutoencoderFitConfig()
    upsampler: PromptUpsamplerConfig = PromptUpsamplerConfig()
    flow: FlowLossConfig = FlowLossConfig()
    sampler: SamplerConfig = added_field(
        DEFAULT_SAMPLER, description="that the model is sampled with by default"
    )
    validation_images: int = added_field(
        50_000,
        ge=0,
        description="images between two measures of the loss on held-out images, by time; 0: none",
    )
    steps: int = Field(50, gt=0, description="steps that the model is sampled with by default")
    guidance: float = Field(3.0, ge=1, description="guidance scale that it is sampled with by default")
    autoguide: AutoguideConfig | None = added_field(
        None, description="a smaller network, trained less, that guidance leads away from, too"
    )

    @model_validator(mode="after")
    def _a_teacher_can_use_its_sampler(self) -> Self:
        if self.sampler.name == "consistency":
            raise InputError("sampler consistency is for a distilled model; train's is another")
        return self

    @model_validator(mode="after")
    def _lora_has_a_model(self) -> Self:
        if self.lora is not None and self.init is None:
            raise InputError("lora adapts a model; name it with train.init")
        return self

    @model_validator(mode="after")
    def _the_autoguide_has_sizes(self) -> Self:
        if self.autoguide is not None:
            _ = self.of_the_autoguide
        return self

    @property
    def of_the_autoguide(self) -> "TrainConfig":
        """How the autoguide is trained: as the network, in another size, on fewer images, anew."""
        assert self.autoguide is not None
        sizes = self.autoguide.model_dump(include={"width", "depth", "heads"})
        network, images = self.network.resized(**sizes), self.autoguide.images
        return self.model_copy(update={"network": network, "images": images, "lora": None, "init": None})

    @model_validator(mode="after")
    def _reflow_has_a_flow(self) -> Self:
        if self.reflow is not None and self.init is None:
            raise InputError("reflow goes on from a flow; name it with train.init")
        if self.reflow is not None and self.autoguide is not None:
            raise InputError("reflow absorbs its guidance, so its model has no autoguide; set autoguide=null")
        if self.reflow is not None and self.diffusion.process != "rectified_flow":
            raise InputError(
                f"reflow is of rectified flow, and diffusion.process is {self.diffusion.process}"
            )
        return self


def run(work: Work) -> list[PartReceipt]:
    """Fit the vocabulary, the autoencoder and the upsampler, train the autoguide and the network, save them.

    The first two, and the weights to start with, are those of the initial model, if there is one.
    """
    from components.conditioning.text import fit_text_encoder
    from components.diffusion.dit import DiT
    from components.generation.model_folder import Model, ModelCard, listed_sizes
    from components.shards.wanted_features import check_features
    from pipelines.stages.learning.autoencoder_run import make_autoencoder
    from pipelines.stages.learning.initial_model import initial_folder, load_initial_model
    from pipelines.stages.learning.reflow_run import draw_couplings, straightness_of
    from pipelines.stages.learning.training_batches import captions
    from pipelines.stages.learning.training_run import check_tracking, indexes, save_trained, train_tracked
    from pipelines.stages.learning.upsampler_run import make_upsampler

    check_tracking(work)
    config: TrainConfig = work.config
    shards, folder = indexes(work), initial_folder(work)
    initial = load_initial_model(folder, config) if folder is not None else None
    # A vocabulary is fitted on all captions; where there is none to fit, some are read to be counted.
    fitted = initial is None and config.text.model == LEARNED
    texts = list(islice(captions(shards), None if fitted else CAPTIONS_COUNTED))
    encoder = initial.encoder if initial else fit_text_encoder(config.text, texts)
    _count_cut_captions(work, encoder, texts[:CAPTIONS_COUNTED])
    learned = encoder if config.text.model == LEARNED else None
    autoencoder = initial.autoencoder if initial else make_autoencoder(work, shards)
    image_size = config.network.image_size * autoencoder.downscale
    if pretrained := check_features(shards, encoder, autoencoder, image_size).as_dict():
        work.info["encoders"] = pretrained
    upsampler = make_upsampler(work, shards)
    guide, guide_card = _train_autoguide(work, shards, folder, learned, autoencoder)
    pairs = draw_couplings(work, initial, shards) if initial and config.reflow else None
    task = _make_task(config, shards, folder, pairs, encoder, autoencoder, 0, 1)
    make_task = partial(_make_task, config, shards, folder, pairs, learned, autoencoder)
    trained = train_tracked(work, task, make_task)
    assert isinstance(trained.ema, DiT)
    if initial and pairs is not None:
        work.info["straightness"] = straightness_of(initial, trained.ema, config, pairs)
    card = ModelCard(
        kind="flow",
        dit=trained.ema.config,
        diffusion=config.diffusion,
        text=config.text,
        autoencoder=config.autoencoder.card,
        steps=config.steps,
        guidance=config.guidance if config.reflow is None else 1.0,  # absorbed
        autoguide=guide_card,
        sampler=config.sampler,
        images_seen=trained.curve[-1].images_seen,
        sizes=listed_sizes(task.sizes, image_size),
    )
    model = Model(trained.ema, encoder, card, upsampler, autoencoder, guide)
    return save_trained(work, model, trained, task.records)


def _train_autoguide(
    work: Work, shards: Sequence[Path], folder: Path | None, encoder: Any, autoencoder: "Autoencoder"
) -> "tuple[DiT | None, AutoguideCard | None]":
    """The weaker network that the config asks for, and what the card says of it. The rest: see _make_task."""
    from pipelines.stages.learning.autoguide_run import train_autoguide

    config: TrainConfig = work.config
    if config.autoguide is None:
        return None, None
    of_it = config.of_the_autoguide
    make_task = partial(_make_task, of_it, shards, folder, None, encoder, autoencoder)
    network = train_autoguide(work, of_it, make_task)
    return network, AutoguideCard(dit=network.config, scale=config.autoguide.scale)


def _count_cut_captions(work: Work, encoder: "TextEncoder", seen: Sequence[str]) -> None:
    """Say how many captions are longer than what the model reads of them."""
    cut = encoder.count_cut(seen)
    work.info["captions_cut"] = {"of": len(seen), "cut": cut}
    if cut:
        work.progress.say(
            f"train: {cut:,} of {len(seen):,} captions have more than {encoder.max_length} tokens; the rest"
            " of each is not read; raise train.text.max_length to read all"
        )


def _make_task(
    config: TrainConfig,
    shards: Sequence[Path],
    folder: Path | None,
    pairs: Path | None,
    encoder: Any,
    autoencoder: "Autoencoder",
    rank: int,
    world_size: int,
) -> "TrainingTask":
    """What one process trains.

    folder: of the initial model, whose text encoder is taken, and its network where the config has an init;
    pairs: of its couplings; encoder: None to load the pretrained one.
    """
    from components.conditioning.text import fit_text_encoder
    from components.generation.model_folder import load_model
    from components.training.flow_loss import FlowLoss
    from components.training.validation import Validation
    from pipelines.stages.learning.reflow_run import coupled_batches
    from pipelines.stages.learning.training_batches import (
        batches,
        caption_loader,
        count_held_out,
        held_out_batches,
    )
    from pipelines.stages.learning.training_run import TrainingTask, build_network

    initial = load_model(folder, upsampler=False) if folder is not None else None
    encoder = encoder or (initial.encoder if initial else fit_text_encoder(config.text, ()))
    image_size = config.network.image_size * autoencoder.downscale
    unit = config.network.patch * autoencoder.downscale
    loader = caption_loader(shards, config, image_size, rank, world_size, unit=unit)
    loss = FlowLoss(config.flow, config.diffusion, encoder([""]))
    held_out = partial(held_out_batches, shards, config, encoder, autoencoder, image_size, rank, world_size)
    measured = config.validation_images and pairs is None and count_held_out(shards)
    return TrainingTask(
        network=initial.network.requires_grad_(True)
        if initial and config.init
        else build_network(config, encoder, autoencoder),
        loss=loss,
        data=lambda images_seen: (
            batches(loader, encoder, autoencoder, images_seen)
            if pairs is None
            else coupled_batches(pairs, config, encoder, images_seen, rank, world_size)
        ),
        records=loader.samples,
        sizes=loader.sizes,
        validation=Validation(loss, held_out, config.validation_images) if measured else None,
    )


# Of the annotators: the judge checks the upsampler, the captioner sees what the autoencoder draws.
INPUTS = ("annotators", "shard")
STAGE = Stage(name="train", version=4, config_type=TrainConfig, inputs=INPUTS, run=run)
