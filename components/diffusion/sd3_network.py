"""SD3's transformer (Esser 2024) of diffusers as a denoiser's network."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from components.conditioning.text_tokens import TextTokens
from components.diffusion.config import DiTConfig
from components.errors import REASON_LENGTH, InputError, one_line

ARCHITECTURE = "transformer.json"  # in a model folder: its config, as diffusers has it
TIME_SCALE = 1000  # its times are those of 1000 steps


class SD3Network(nn.Module):
    """SD3Network(x_t, t, text): (B, C, H, W), (B,), TextTokens of SD3Text -> the velocity, (B, C, H, W).

    It was trained on rectified flow as it is written here: x_t = (1 - t) x_0 + t eps, v = eps - x_0.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        pooled, tokens = text.values[:, 0], text.values[:, 1:]
        velocity: Tensor = self.transformer(
            hidden_states=x_t,
            encoder_hidden_states=tokens,
            pooled_projections=pooled[:, : self.transformer.config.pooled_projection_dim],
            timestep=TIME_SCALE * t,
            return_dict=False,
        )[0]
        return velocity.float()

    def checkpoint_activations(self) -> None:
        """From now on keep only each block's input for the backward pass, which computes the rest again."""
        self.transformer.enable_gradient_checkpointing()

    @property
    def most_patches(self) -> int:
        """Along a side of an image; its position embeddings end there."""
        return int(self.transformer.config.pos_embed_max_size)

    def sizes(self, text_length: int) -> DiTConfig:
        """What a model's card says of it. text_length: most tokens of a text."""
        config = self.transformer.config
        return DiTConfig(
            image_size=config.sample_size,
            channels=config.in_channels,
            patch=config.patch_size,
            width=config.num_attention_heads * config.attention_head_dim,
            depth=config.num_layers,
            heads=config.num_attention_heads,
            text_length=text_length,
            text_features=config.joint_attention_dim,
        )

    def save_architecture(self, folder: Path) -> None:
        """Write what `make` reads into a model folder."""
        (folder / ARCHITECTURE).write_text(self.transformer.to_json_string())

    @classmethod
    def make(cls, folder: Path) -> "SD3Network":
        """One of the architecture in a model folder, its weights yet to be loaded.

        Raises FileNotFoundError where there is none, InputError, one line, where it cannot be made.
        """
        settings = (folder / ARCHITECTURE).read_bytes()
        from diffusers import SD3Transformer2DModel

        try:
            return cls(SD3Transformer2DModel.from_config(json.loads(settings)))
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            raise InputError(
                f"{folder / ARCHITECTURE} is no SD3 transformer's ({one_line(error, REASON_LENGTH)});"
                " make the model again"
            ) from error
