"""A trained model as a folder: `config.json` (its card), `model.safetensors`, `autoguide.safetensors` where
guidance has a weaker network, the files of text encoder, autoencoder and upsampler, and `transformer.json` of
an SD3's. The card holds what sampling needs: process, prediction, steps, guidance.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import nn

from components.conditioning.autoencoder import Autoencoder, PixelAutoencoder, load_autoencoder
from components.conditioning.config import AutoencoderConfig, TextConfig
from components.conditioning.identity import refuse_non_finite
from components.conditioning.text import TextEncoder, load_text_encoder
from components.config_field import added_field
from components.diffusion.config import (
    DEFAULT_SAMPLER,
    AutoguideCard,
    DiffusionConfig,
    DiTConfig,
    SamplerConfig,
)
from components.diffusion.denoiser import Autoguide, Denoiser, make_denoiser
from components.diffusion.dit import DiT
from components.diffusion.sd3_network import SD3Network
from components.errors import InputError, first_fault, one_line
from components.image_size import ImageSize, WrittenSize

if TYPE_CHECKING:
    from components.upsampling.prompt_upsampler import PromptUpsampler

CARD, WEIGHTS, UPSAMPLER = "config.json", "model.safetensors", "upsampler"
AUTOGUIDE_WEIGHTS = "autoguide.safetensors"
OWN_FILES = (CARD, WEIGHTS, AUTOGUIDE_WEIGHTS)  # what a student has not from its teacher
MOST_ENLARGED = 16  # times the pixels of the largest trained size: beyond it memory ends before sense does
MAX_DETAIL = 200  # characters of a library's error in ours


class ModelCard(BaseModel):
    """What a model is and how it is sampled by default.

    A card without `diffusion`, `autoencoder` or `sampler`, as written before there were others, means their
    defaults: rectified flow, x_0, pixels, Euler's method.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["flow", "consistency", "mean_flow"] = Field(
        description="flow: integrated with guidance; consistency: its own consistency function;"
        " mean_flow: its own average velocity"
    )
    network: Literal["dit", "sd3"] = added_field(
        "dit",
        description="sd3: the transformer of SD3, its architecture in a file of its own; dit: its sizes",
    )
    dit: DiTConfig
    diffusion: DiffusionConfig = DiffusionConfig()
    text: TextConfig
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    steps: int = Field(gt=0, description="network evaluations (guided ones count once) by default")
    guidance: float | None = Field(description="guidance scale; of a student: absorbed")
    autoguide: AutoguideCard | None = added_field(
        None, description="of a flow: the weaker network that guidance leads away from, and how far"
    )
    sampler: SamplerConfig = added_field(DEFAULT_SAMPLER, description="of a flow; a student has its own")
    images_seen: int = Field(ge=0, description="in the training that made it")
    sizes: tuple[WrittenSize, ...] = added_field(
        (), description="of the images that it was trained on, in pixels; by default its square alone"
    )
    times: dict[int, tuple[float, ...]] = added_field(
        {}, description="by a number of steps the times that they go along, from 1 to 0; by default even ones"
    )

    @field_validator("times")
    @classmethod
    def _times_fall(cls, times: dict[int, tuple[float, ...]]) -> dict[int, tuple[float, ...]]:
        for steps, grid in times.items():
            falling = all(t > s for t, s in pairwise(grid))
            if len(grid) != steps + 1 or (grid[0], grid[-1]) != (1, 0) or not falling:
                raise InputError(f"the times of {steps} steps are not {steps + 1} that fall from 1 to 0")
        return times

    @property
    def is_student(self) -> bool:
        """Whether it was made for one or a few steps, any guidance absorbed."""
        return self.kind != "flow"


@dataclass(frozen=True)
class Model:
    """A model ready to use: network in evaluation mode, encoders, card and prompt upsampler.

    autoguide: the weaker network of its card's autoguide.
    """

    network: DiT | SD3Network
    encoder: TextEncoder
    card: ModelCard
    upsampler: "PromptUpsampler | None" = None
    autoencoder: Autoencoder = field(default_factory=PixelAutoencoder)
    autoguide: DiT | None = None

    @property
    def denoiser(self) -> Denoiser:
        """The network with the card's process and prediction, and with its autoguide."""
        guide = None
        if self.autoguide is not None and self.card.autoguide is not None:
            guide = Autoguide(self.autoguide, self.card.autoguide.scale)
        return make_denoiser(self.network, self.card.diffusion, guide)

    @property
    def image_size(self) -> int:
        """Side of its square images, in pixels."""
        return self.card.dit.image_size * self.autoencoder.downscale

    @property
    def sizes(self) -> tuple[ImageSize, ...]:
        """Of images that it was trained to generate, in pixels; the first by default."""
        return self.card.sizes or (ImageSize.square(self.image_size),)

    def size_of(self, requested: ImageSize | None) -> ImageSize:
        """The requested size if it can be generated, trained or not; the model's own by default.

        Raises InputError for one that its patches do not cover, for one far larger than any it knows, and for
        one beyond the position embeddings of an SD3.
        """
        if requested is None:
            return self.sizes[0]
        unit = self.card.dit.patch * self.autoencoder.downscale
        if not requested.divides_by(unit):
            raise InputError(
                f"size is {requested}; both sides of this model's images are multiples of {unit}"
            )
        if isinstance(self.network, SD3Network) and max(requested) > self.network.most_patches * unit:
            raise InputError(
                f"size is {requested}; the sides of this SD3 are at most {self.network.most_patches * unit}"
            )
        largest = max(self.sizes, key=lambda size: size.pixels)
        if requested.pixels > MOST_ENLARGED * largest.pixels:
            raise InputError(
                f"size is {requested}; it may have {MOST_ENLARGED} times the pixels of {largest}, the largest"
                " that this model was trained at, and not more"
            )
        return requested


def listed_sizes(trained: Iterable[ImageSize], side: int) -> tuple[ImageSize, ...]:
    """What a card lists of the sizes of a training: the square of that side first; nothing of it alone."""
    square = ImageSize.square(side)
    sizes = sorted(trained, key=lambda size: (size != square, size))
    return () if sizes == [square] else tuple(sizes)


def save_model(folder: Path, model: Model) -> None:
    """Write the model's files into an existing folder."""
    _save_weights(model.network, folder / WEIGHTS)
    if model.autoguide is not None:
        _save_weights(model.autoguide, folder / AUTOGUIDE_WEIGHTS)
    if isinstance(model.network, SD3Network):
        model.network.save_architecture(folder)
    model.encoder.save(folder)
    model.autoencoder.save(folder)
    if model.upsampler is not None:
        model.upsampler.save(folder / UPSAMPLER)
    (folder / CARD).write_text(json.dumps(model.card.model_dump(mode="json"), indent=1) + "\n")


def load_model(folder: Path, device: str = "cpu", *, upsampler: bool = True) -> Model:
    """Read a model folder onto `device`, with its upsampler or without.

    Raises InputError, one line, if it is not one.
    """
    from safetensors import SafetensorError

    _refuse_missing(folder, CARD)
    try:
        card = ModelCard.model_validate_json((folder / CARD).read_bytes())
        network = SD3Network.make(folder) if card.network == "sd3" else DiT(card.dit)
        _load_weights(network, folder / WEIGHTS)
        autoguide = DiT(card.autoguide.dit) if card.autoguide else None
        if autoguide is not None:
            _load_weights(autoguide, folder / AUTOGUIDE_WEIGHTS)
        encoder = load_text_encoder(card.text, folder)
        autoencoder = load_autoencoder(card.autoencoder, folder)
        prompts = _load_upsampler(folder / UPSAMPLER, device) if upsampler else None
    except FileNotFoundError as error:
        raise InputError(f"{folder} is not a model folder: {Path(error.filename).name} is missing") from error
    except ValidationError as error:
        line = f"{CARD}: {first_fault(error)}"
        raise InputError(f"{folder} does not load as a model ({line}); make it again") from error
    except (SafetensorError, RuntimeError) as error:
        line = one_line(error, MAX_DETAIL)
        raise InputError(f"{folder} does not load as a model ({line}); make it again") from error
    for one in (network, autoguide):
        if one is not None:
            one.to(device).eval().requires_grad_(False)
    target = torch.device(device)
    return Model(network, encoder.to(target), card, prompts, autoencoder.to(target), autoguide)


def _save_weights(network: nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, path)


def _load_weights(network: nn.Module, path: Path) -> None:
    """Raises InputError, one line, where they are missing, not the network's or not finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _refuse_missing(path.parent, path.name)
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        line = f"{path.name}: {one_line(error, MAX_DETAIL)}"
        raise InputError(f"{path.parent} does not load as a model ({line}); make it again") from error
    refuse_non_finite(network.state_dict(), str(path.parent))


def _refuse_missing(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise InputError(f"{folder} is not a model folder: {name} is missing")


def _load_upsampler(folder: Path, device: str) -> "PromptUpsampler | None":
    from components.upsampling.prompt_upsampler import PromptUpsampler

    return PromptUpsampler.load(folder, device) if folder.exists() else None
