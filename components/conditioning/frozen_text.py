"""Features of frozen text encoders: those of transformers here, open_clip's in open_clip_text.py."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from components.conditioning.config import LAST_LAYER, Dtype
from components.conditioning.feature_cache import FeatureCache
from components.conditioning.identity import FeatureIdentity, digest, parts_of_weights, refuse_non_finite
from components.conditioning.text_tokens import TextTokens
from components.errors import REASON_LENGTH, InputError, one_line

CACHE_BYTES = 2**30  # of a frozen encoder's features, in each process: 7,000 captions of 48 T5-base tokens
ENCODER_FOLDER = "text_encoder"  # in a model folder


class PretrainedText(ABC):
    """Features of a pretrained text encoder, never trained.

    Each text is encoded alone, without padding, and kept in `cache`: its features are a function of the text,
    to the bit, whatever is beside it and whether or not it was seen before, so that a resumed training (which
    begins with an empty cache) sees the same.

    source, revision: what it was loaded by, and the commit of an id. max_length: tokens that are read.
    """

    model: Any  # the network, a torch module
    source: str
    revision: str | None
    max_length: int
    cache: FeatureCache

    @property
    @abstractmethod
    def features(self) -> int:
        """The width of a token's features."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of its arithmetic."""

    @cached_property
    @abstractmethod
    def digest(self) -> str:
        """sha256 (hex) of all that its features depend on."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Save encoder and tokenizer with the model trained on them, so that it needs nothing else."""

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """The text's features (L, D), L > 0, in the encoder's own precision, on its device."""

    @abstractmethod
    def is_cut(self, text: str) -> bool:
        """Whether it has more tokens than are read."""

    def count_cut(self, captions: Sequence[str]) -> int:
        return sum(map(self.is_cut, captions))

    @property
    def identity(self) -> str:
        return f"frozen:{self.digest}"

    @property
    def stored(self) -> FeatureIdentity:
        """What is written beside stored features of it."""
        return FeatureIdentity(
            model=self.source,
            revision=self.revision,
            digest=self.digest,
            dtype=str(self.dtype).removeprefix("torch."),
            size=self.max_length,
        )

    def to(self, device: torch.device) -> Self:
        """Move the model, in place. Its cache is emptied: another device rounds otherwise."""
        before = self.device
        self.model.to(device)
        if self.device != before:
            self.cache.clear()
        return self

    def __call__(self, captions: Sequence[str]) -> TextTokens:
        features = {text: self._features(text) for text in dict.fromkeys(captions)}
        return TextTokens.of_features([features[caption] for caption in captions]).to(self.device)

    def _features(self, text: str) -> Tensor:
        """The text's features (L, D), on the CPU."""
        features = self.cache.get(text)
        if features is None:
            with torch.no_grad():
                features = self.encode(text).cpu()
            self.cache.put(text, features)
        return features


class FrozenText(PretrainedText):
    """A text encoder of transformers by id or path: T5, CLIP's text tower, a language model's hidden states.

    layer: which hidden state, counted from the end: -1 is what the model gives out, after its last norm.
    Raises InputError where there is no such model. Reads at most as many tokens as the model has positions
    for.
    """

    def __init__(
        self,
        model: str,
        max_length: int,
        revision: str | None = None,
        *,
        dtype: Dtype = "auto",
        layer: int = LAST_LAYER,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        try:
            self.tokenizer, encoder = _load_pretrained(model, revision, dtype)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = one_line(error, REASON_LENGTH)
            raise InputError(
                f"text encoder '{model}' cannot be loaded ({reason}); give a folder or a hub id of a"
                " transformers text encoder"
            ) from error
        refuse_non_finite(encoder.state_dict(), f"text encoder '{model}'")
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.model = encoder.eval().requires_grad_(False)
        self.source, self.revision = model, getattr(encoder.config, "_commit_hash", None)
        self.layer = layer
        positions = getattr(encoder.config, "max_position_embeddings", max_length)
        self.max_length = min(max_length, self.tokenizer.model_max_length, positions)
        self.cache = FeatureCache(cache_bytes)
        self._check_layer()

    @property
    def features(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    @cached_property
    def digest(self) -> str:
        # Truncation and padding are how the tokenizer was last used, not what it is.
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str()) | {"truncation": 0, "padding": 0}
        parts = [json.dumps(tokenizer, sort_keys=True).encode(), str(self.max_length).encode()]
        if self.layer != LAST_LAYER:
            parts.append(f"layer {self.layer}".encode())
        return digest(*parts, *parts_of_weights(self.model.state_dict()))

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder / ENCODER_FOLDER)
        self.tokenizer.save_pretrained(folder / ENCODER_FOLDER)

    def encode(self, text: str) -> Tensor:
        ids = self.tokenizer(text, truncation=True, max_length=self.max_length).input_ids
        inputs = torch.tensor([ids or [self._any_token()]], device=self.device)
        if self.layer == LAST_LAYER:
            last: Tensor = self.model(input_ids=inputs).last_hidden_state[0]
            return last
        states = self.model(input_ids=inputs, output_hidden_states=True).hidden_states
        hidden: Tensor = states[self.layer][0]
        return hidden

    def is_cut(self, text: str) -> bool:
        ids = self.tokenizer(text, truncation=True, max_length=self.max_length + 1).input_ids
        return len(ids) > self.max_length

    def _any_token(self) -> int:
        """What stands for a text of no token; a tokenizer without special tokens has a first token."""
        return int(self.tokenizer.pad_token_id or 0)

    def _check_layer(self) -> None:
        layers = getattr(self.model.config, "num_hidden_layers", -LAST_LAYER)
        if -self.layer > layers + 1:  # the embeddings are a hidden state, too
            raise InputError(
                f"text encoder '{self.source}' has {layers} layers, and layer is {self.layer}; set it to"
                f" {-layers - 1} to {LAST_LAYER}"
            )


def _load_pretrained(model: str, revision: str | None, dtype: Dtype) -> tuple[Any, Any]:
    """The tokenizer and the text tower of a pretrained model, every weight of it from the checkpoint."""
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # our own progress is displayed
    config = AutoConfig.from_pretrained(model, revision=revision)
    commit = getattr(config, "_commit_hash", None)
    config = getattr(config, "text_config", config)  # CLIP and its kin: the text tower of two
    known = type(config) in AutoModelForTextEncoding._model_mapping
    if getattr(config, "is_encoder_decoder", False) and not known:
        raise ValueError(f"a {config.model_type} has a decoder, whose states are of its own text")
    auto = AutoModelForTextEncoding if known else AutoModel
    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # a tower leaves the rest of a checkpoint alone, and what it lacks is below
    try:
        encoder, info = auto.from_pretrained(
            model, revision=revision, config=config, dtype=dtype, output_loading_info=True
        )
    finally:
        logging.set_verbosity(verbosity)
    if missing := sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}):
        raise ValueError(f"its checkpoint lacks {len(missing)} of the weights, such as {missing[0]}")
    encoder.config._commit_hash = commit
    return tokenizer, encoder
