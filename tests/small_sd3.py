"""A tiny SD3 pipeline as diffusers saves it, built from its configs."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from tests.small_autoencoders import small_kl

WORDS = ["<pad>", "</s>", "<unk>", "<s>", "all", "everywhere", "red", "green", "blue", "grey"]


def tokenizer(length: int) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("<s>", 3), ("</s>", 1)]
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=special)
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=length, **names)


def small_sd3() -> StableDiffusion3Pipeline:
    """16 × 16 images through 4 × 4 latents. Its schedule is even, its output not near zero."""
    torch.manual_seed(0)
    text = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
    text |= {"num_hidden_layers": 2, "max_position_embeddings": 8, "projection_dim": 8, "eos_token_id": 1}
    clips = [
        CLIPTextModelWithProjection(CLIPTextConfig(**text, bos_token_id=3, pad_token_id=0)) for _ in "12"
    ]
    t5 = T5EncoderModel(T5Config(vocab_size=16, d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    sizes: dict[str, Any] = {"sample_size": 4, "patch_size": 1, "in_channels": 4, "out_channels": 4}
    sizes |= {"num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2, "pos_embed_max_size": 8}
    sizes |= {"joint_attention_dim": 24, "caption_projection_dim": 16, "pooled_projection_dim": 16}
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(**sizes),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=small_kl(),
        text_encoder=clips[0].eval(),
        tokenizer=tokenizer(8),
        text_encoder_2=clips[1].eval(),
        tokenizer_2=tokenizer(8),
        text_encoder_3=t5.eval(),
        tokenizer_3=tokenizer(512),
    )


def save_sd3(folder: Path) -> str:
    """Save `small_sd3` there; returns the path."""
    small_sd3().save_pretrained(folder)
    return str(folder)
