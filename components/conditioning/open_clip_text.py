"""Features of a frozen text tower of open_clip: each token's, before they are pooled."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.conditioning.config import Dtype
from components.conditioning.feature_cache import FeatureCache
from components.conditioning.frozen_text import CACHE_BYTES, ENCODER_FOLDER, PretrainedText
from components.conditioning.hub import find_model
from components.conditioning.identity import digest, parts_of_weights, refuse_non_finite
from components.errors import REASON_LENGTH, InputError, one_line

LOCAL, HUB = "local-dir:", "hf-hub:"  # how open_clip names a folder, and a model on the hub
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
PRECISIONS = {"auto": "fp32", "float32": "fp32", "bfloat16": "pure_bf16", "float16": "pure_fp16"}
IMAGE_TOWER = "visual."  # prefix of weights that a text never meets


def of_open_clip(model: str) -> bool:
    """Whether a name is of an open_clip model, as `annotators.judge` has them."""
    return model.startswith((LOCAL, HUB))


class OpenClipText(PretrainedText):
    """The text tower of "hf-hub:ID[@REVISION]" or "local-dir:PATH", in float32 unless dtype says otherwise.

    A text is padded to the model's context as the model was trained; the features are those of its own
    tokens, after the last norm. Raises InputError where there is no such model, or its tower is one of
    transformers, which FrozenText takes by its own id.
    """

    def __init__(
        self, model: str, max_length: int, *, dtype: Dtype = "auto", cache_bytes: int = CACHE_BYTES
    ) -> None:
        import open_clip

        name, _, revision = model.removeprefix(LOCAL).removeprefix(HUB).partition("@")
        path = model.removeprefix(LOCAL) if model.startswith(LOCAL) else name
        folder, self.revision = find_model(f"text encoder '{model}'", path, revision or None)
        try:
            self.config = json.loads((folder / CONFIG).read_bytes())
            network = open_clip.create_model_from_pretrained(
                f"{LOCAL}{folder}", precision=PRECISIONS[dtype], return_transform=False
            )
            self.tokenizer: Any = open_clip.get_tokenizer(f"{LOCAL}{folder}")
        except (RuntimeError, OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            reason = one_line(error, REASON_LENGTH)
            raise InputError(
                f"text encoder '{model}' cannot be loaded ({reason}); give a model that open_clip saved"
            ) from error
        self.source = model
        self.model = network.eval().requires_grad_(False)
        tower = getattr(network, "text", network)
        if not hasattr(tower, "ln_final"):
            raise InputError(
                f"text encoder '{model}' has a text tower of transformers; give that by its own id or path"
            )
        self._norm = tower.ln_final
        self.context: int = network.context_length
        self.max_length = min(max_length, self.context)
        self.cache = FeatureCache(cache_bytes)
        refuse_non_finite(self._text_weights(), f"text encoder '{model}'")

    @property
    def features(self) -> int:
        return int(self._norm.weight.shape[0])

    @property
    def device(self) -> torch.device:
        device: torch.device = self._norm.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._norm.weight.dtype
        return dtype

    @cached_property
    def digest(self) -> str:
        tokens = self.tokenizer(["a photo of 1 Cat!", ""]).tolist()  # open_clip's own tokenizer has no files
        settings = json.dumps([self.config["model_cfg"].get("text_cfg"), tokens], sort_keys=True)
        parts = [b"open_clip", settings.encode(), str(self.max_length).encode(), *self._vocabulary()]
        return digest(*parts, *parts_of_weights(self._text_weights()))

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        target = folder / ENCODER_FOLDER
        target.mkdir(parents=True, exist_ok=True)
        weights = {name: w.detach().cpu().contiguous().clone() for name, w in self.model.state_dict().items()}
        save_file(weights, target / WEIGHTS)
        (target / CONFIG).write_text(json.dumps(self.config, indent=1) + "\n")
        if hasattr(self.tokenizer, "save_pretrained"):
            self.tokenizer.save_pretrained(target)

    def encode(self, text: str) -> Tensor:
        ids = self.tokenizer([text], context_length=self.context).to(self.device)
        seen: list[Tensor] = []
        hook = self._norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            self.model.encode_text(ids)
        finally:
            hook.remove()
        return seen[0][0, : min(self._length(ids[0]), self.max_length)]

    def is_cut(self, text: str) -> bool:
        return self._length(self.tokenizer([text], context_length=self.context + 1)[0]) > self.max_length

    def _length(self, ids: Tensor) -> int:
        """How many of a padded text's tokens are its own, one at least."""
        padding = getattr(getattr(self.tokenizer, "tokenizer", None), "pad_token_id", None) or 0
        own = (ids != padding).nonzero()
        return int(own[-1]) + 1 if len(own) else 1

    def _text_weights(self) -> dict[str, Tensor]:
        return {n: w for n, w in self.model.state_dict().items() if not n.startswith(IMAGE_TOWER)}

    def _vocabulary(self) -> list[bytes]:
        """The tokenizer's content, where it has one that is not open_clip's own."""
        tokenizer = getattr(getattr(self.tokenizer, "tokenizer", None), "backend_tokenizer", None)
        if tokenizer is None:
            return []
        content = json.loads(tokenizer.to_str()) | {"truncation": 0, "padding": 0}
        return [json.dumps(content, sort_keys=True).encode()]
