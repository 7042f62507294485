"""A model folder of the right architecture with random weights: it generates coloured noise."""

from pathlib import Path

import torch

from components.conditioning.text import LearnedText, TextConfig
from components.diffusion.dit import DiT, DiTConfig
from components.generation.model_folder import Model, ModelCard, save_model
from tests.small_upsampler import small_upsampler

PROMPTS = ["a red circle", "a blue square above a green star"]


def write_small_model(folder: Path, *, seed: int = 0, upsampler: bool = True) -> Path:
    """Make `folder` a student of one step and 16 × 16 pixels, with an upsampler or, in less time, without."""
    folder.mkdir(parents=True)
    encoder = LearnedText.fit(PROMPTS, vocabulary=300, max_length=32)
    sizes = DiTConfig(image_size=16, patch=8, width=32, depth=1, heads=2, vocabulary=encoder.vocabulary)
    torch.manual_seed(seed)
    network = DiT(sizes).eval()
    for weights in network.parameters():  # a fresh network has zeros where a trained one has not
        torch.nn.init.normal_(weights, std=0.2)
    text = TextConfig(max_length=32)
    card = ModelCard(kind="consistency", dit=sizes, text=text, steps=1, guidance=3.0, images_seen=0)
    pairs = [(prompt, f"{prompt}, at length") for prompt in PROMPTS]
    save_model(folder, Model(network, encoder, card, small_upsampler(pairs) if upsampler else None))
    return folder
