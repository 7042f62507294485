"""The text encoders of an SD3 pipeline: two CLIPs and a T5 in one sequence (Esser 2024, Section 4)."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.conditioning.feature_cache import FeatureCache
from components.conditioning.frozen_text import CACHE_BYTES, ENCODER_FOLDER, PretrainedText
from components.conditioning.identity import digest, parts_of_weights, refuse_non_finite
from components.errors import REASON_LENGTH, InputError, one_line

PREFIX = "sd3:"  # of the path of a pipeline, in a TextConfig
T5_TOKENS = 256  # of a text that its T5 reads, in diffusers' pipeline
CLIPS, T5 = (
    (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")),
    ("tokenizer_3", "text_encoder_3"),
)


class SD3Text(PretrainedText):
    """Features (1 + L, D) of a text: the pooled CLIP vectors, padded to D, then CLIP's tokens, then T5's.

    As the transformer was trained, every text has all its places, padding included. Raises InputError where
    the folder has not all three encoders.
    """

    def __init__(self, source: str, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.source, self.revision = source, None
        folder = Path(source.removeprefix(PREFIX))
        try:
            self.model, self.tokenizers = _load(folder)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            reason = one_line(error, REASON_LENGTH)
            raise InputError(
                f"the text encoders of '{folder}' cannot be loaded ({reason}); give the folder of an SD3"
                " pipeline with all three"
            ) from error
        refuse_non_finite(self.model.state_dict(), f"the text encoders of '{folder}'")
        self.clip_tokens = int(self.tokenizers["tokenizer"].model_max_length)
        self.max_length = 1 + self.clip_tokens + T5_TOKENS
        self.cache = FeatureCache(cache_bytes)

    @property
    def features(self) -> int:
        return int(self.model["text_encoder_3"].config.d_model)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @cached_property
    def digest(self) -> str:
        contents = []
        for name in sorted(self.tokenizers):
            content = json.loads(self.tokenizers[name].backend_tokenizer.to_str())
            contents.append(json.dumps(content | {"truncation": 0, "padding": 0}, sort_keys=True).encode())
        return digest(*contents, str(self.max_length).encode(), *parts_of_weights(self.model.state_dict()))

    def save(self, folder: Path) -> None:
        for name, part in (*self.model.items(), *self.tokenizers.items()):
            part.save_pretrained(folder / ENCODER_FOLDER / name)

    def encode(self, text: str) -> Tensor:
        hidden, pooled = [], []
        for tokenizer, encoder in CLIPS:
            ids = self._ids(tokenizer, text, self.clip_tokens)
            output = self.model[encoder](ids, output_hidden_states=True)
            hidden.append(output.hidden_states[-2][0])
            pooled.append(output.text_embeds[0])
        t5: Tensor = self.model[T5[1]](self._ids(T5[0], text, T5_TOKENS)).last_hidden_state[0]
        clip = torch.cat(hidden, dim=-1)
        parts = [_widened(torch.cat(pooled)[None], t5), _widened(clip, t5), t5]
        return torch.cat(parts)

    def is_cut(self, text: str) -> bool:
        """Whether T5 reads only its beginning; the CLIPs, which read 77 tokens, are meant to."""
        ids = self.tokenizers[T5[0]](text, truncation=True, max_length=T5_TOKENS + 1).input_ids
        return len(ids) > T5_TOKENS

    def _ids(self, tokenizer: str, text: str, length: int) -> Tensor:
        ids = self.tokenizers[tokenizer](
            text, padding="max_length", max_length=length, truncation=True
        ).input_ids
        return torch.tensor([ids], device=self.device)


def _widened(features: Tensor, like: Tensor) -> Tensor:
    """Features (L, d) padded with zeros to the width of others."""
    return F.pad(features, (0, like.shape[-1] - features.shape[-1])).to(like.dtype)


def _load(folder: Path) -> tuple[nn.ModuleDict, dict[str, Any]]:
    from transformers import AutoTokenizer, CLIPTextModelWithProjection, T5EncoderModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # our own progress is displayed
    encoders = {}
    kinds: list[tuple[str, Any]] = [
        *((encoder, CLIPTextModelWithProjection) for _, encoder in CLIPS),
        (T5[1], T5EncoderModel),
    ]
    for name, kind in kinds:
        encoder, info = kind.from_pretrained(folder / name, dtype="auto", output_loading_info=True)
        if missing := sorted(info["missing_keys"]):
            raise ValueError(f"{name} lacks {len(missing)} of its weights, such as {missing[0]}")
        encoders[name] = encoder.eval().requires_grad_(False)
    tokenizers = {name: AutoTokenizer.from_pretrained(folder / name) for name, _ in (*CLIPS, T5)}
    return nn.ModuleDict(encoders), tokenizers
