"""A trained model as a folder: `config.json`, `model.safetensors`, its text encoder's files, its upsampler.

Written by the train and distill stages, read by the Generator, by distillation and by the registry.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.conditioning.text import TextConfig, TextEncoder, load_text_encoder
from components.diffusion.dit import DiT, DiTConfig
from components.generation.prompt_upsampler import PromptUpsampler

CARD, WEIGHTS, UPSAMPLER = "config.json", "model.safetensors", "upsampler"
MOST_DETAIL = 200  # characters of a library's error that are shown


class ModelCard(BaseModel):
    """What a model is and how it likes to be sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["flow", "consistency"]
    dit: DiTConfig
    text: TextConfig
    steps: int = Field(gt=0, description="network evaluations (guided ones count once) by default")
    guidance: float | None = Field(description="guidance scale; of a consistency model: absorbed")
    images_seen: int = Field(ge=0, description="in the training that made it")


@dataclass(frozen=True)
class Model:
    """A model ready to use: network in evaluation mode, text encoder, card, what says prompts at length."""

    network: DiT
    encoder: TextEncoder
    card: ModelCard
    upsampler: PromptUpsampler | None = None


def save_model(folder: Path, model: Model) -> None:
    """Write the model's files into an existing folder."""
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    model.encoder.save(folder)
    if model.upsampler is not None:
        model.upsampler.save(folder / UPSAMPLER)
    (folder / CARD).write_text(json.dumps(model.card.model_dump(mode="json"), indent=1) + "\n")


def load_model(folder: Path, device: str = "cpu", *, upsampler: bool = True) -> Model:
    """Read a model folder, with its upsampler if asked for. Raises ValueError, one line, if it is not one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in (CARD, WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is not a model folder: {name} is missing")
    try:
        card = ModelCard.model_validate_json((folder / CARD).read_bytes())
        network = DiT(card.dit)
        network.load_state_dict(load_file(folder / WEIGHTS))
        encoder = load_text_encoder(card.text, folder)
        says = folder / UPSAMPLER
        said = PromptUpsampler.load(says, device=device, ours=True) if upsampler and says.exists() else None
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is not a model folder: {Path(error.filename).name} is missing") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        line = f"{CARD}: {where}: {first['msg']}" if where else f"{CARD}: {first['msg']}"
        raise ValueError(f"{folder} does not load as a model ({line}); make it again") from error
    except (SafetensorError, RuntimeError) as error:
        line = " ".join(str(error).split())[:MOST_DETAIL]
        raise ValueError(f"{folder} does not load as a model ({WEIGHTS}: {line}); make it again") from error
    return Model(network.to(device).eval().requires_grad_(False), encoder, card, said)
