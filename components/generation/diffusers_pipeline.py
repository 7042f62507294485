"""A pipeline of diffusers as a Model: a teacher from elsewhere, behind the same denoiser."""

import json
from pathlib import Path

import torch

from components.conditioning.config import AutoencoderConfig, TextConfig
from components.conditioning.diffusers_autoencoder import DiffusersAutoencoder
from components.conditioning.diffusers_model import read_diffusers_model
from components.conditioning.identity import refuse_non_finite
from components.conditioning.sd3_text import PREFIX, SD3Text
from components.diffusion.config import DiffusionConfig
from components.diffusion.sd3_network import SD3Network
from components.errors import InputError, one_line
from components.generation.model_folder import Model, ModelCard, load_model

INDEX, PIPELINE = "model_index.json", "StableDiffusion3Pipeline"
STEPS, GUIDANCE = 28, 7.0  # diffusers' defaults of this pipeline


def load_teacher(folder: Path, *, upsampler: bool = True) -> Model:
    """A model folder, or the folder of an SD3 pipeline. Raises InputError, one line, where it is neither."""
    return load_pipeline(folder) if (folder / INDEX).is_file() else load_model(folder, upsampler=upsampler)


def load_pipeline(folder: Path) -> Model:
    """The transformer, the text encoders and the autoencoder of an SD3 pipeline, on the CPU."""
    try:
        name = json.loads((folder / INDEX).read_bytes())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is not a pipeline of diffusers ({INDEX}: {one_line(error)})") from error
    if name != PIPELINE:
        raise InputError(f"{folder} is a {name}; the pipelines that can be distilled are {PIPELINE}s")
    what = f"the transformer of '{folder}'"
    transformer = read_diffusers_model(folder / "transformer", "SD3Transformer2DModel", torch.float32, what)
    refuse_non_finite(transformer.state_dict(), what)
    network, encoder = SD3Network(transformer), SD3Text(f"{PREFIX}{folder}")
    card = ModelCard(
        kind="flow",
        network="sd3",
        dit=network.sizes(encoder.max_length),
        diffusion=DiffusionConfig(process="rectified_flow", prediction="velocity"),
        text=TextConfig(model=encoder.source, max_length=encoder.max_length),
        autoencoder=AutoencoderConfig(model=str(folder)),
        steps=STEPS,
        guidance=GUIDANCE,
        images_seen=0,
    )
    return Model(network, encoder, card, None, DiffusersAutoencoder.load(str(folder)))
