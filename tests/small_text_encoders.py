"""Tiny text encoders as their own libraries save them, built from their configs."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<unk>", "a", "all", "and", "red", "green", "blue", "grey", "circle", "square", "everywhere"]
CONTEXT = 12


def save_llama(folder: Path) -> str:
    """A causal language model whose tokenizer adds no token to a text, and has none to pad with."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=16, max_position_embeddings=24, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def save_open_clip(folder: Path, *, custom: bool = False) -> str:
    """An open_clip model with open_clip's own tokenizer. custom: of those with a text tower apart."""
    text = {"context_length": CONTEXT, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 2}
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    model_cfg = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text, "custom_text": custom}
    torch.manual_seed(0)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = kind(embed_dim=8, vision_cfg=vision, text_cfg=text)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    document = {"model_cfg": model_cfg, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    return f"local-dir:{folder}"
