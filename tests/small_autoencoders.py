"""Tiny autoencoders as diffusers saves them, built from their configs."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny

SHIFT, SCALE = 0.06, 1.5  # as SD3's are, about


def small_kl(**settings: Any) -> AutoencoderKL:
    """4 channels, a quarter of the image's side."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
    sizes = {"block_out_channels": [8, 8, 8], "norm_num_groups": 4, "mid_block_add_attention": False}
    scaling = {"shift_factor": SHIFT, "scaling_factor": SCALE}
    return AutoencoderKL(**{**blocks, **sizes, **scaling, **settings})


def small_dc() -> AutoencoderDC:
    """4 channels, half of the image's side."""
    torch.manual_seed(0)
    widths, layers = (8, 8), (1, 1)
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.4,
    )


def small_tiny() -> AutoencoderTiny:
    """4 channels, half of the image's side."""
    torch.manual_seed(0)
    widths = {f"{part}_block_out_channels": (8, 8) for part in ("encoder", "decoder")}
    return AutoencoderTiny(**widths, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))


def save_kl(folder: Path, **settings: Any) -> str:
    """Save `small_kl` there; returns the path as a config names it."""
    small_kl(**settings).save_pretrained(folder)
    return str(folder)
