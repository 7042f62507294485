"""Text as the DiT sees it: ids of a learned vocabulary, or the features of a frozen pretrained encoder.

The null text (for guidance) is the empty caption; both encoders give it a token, so that attention always
has something to attend to. What a text is encoded to depends on nothing but the text.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from components.conditioning.bpe import train_bpe
from components.conditioning.config import LEARNED, TextConfig
from components.conditioning.feature_cache import FeatureCache
from components.errors import REASON_LENGTH, InputError, one_line

TOKENIZER_FILE = "tokenizer.json"
ENCODER_FOLDER = "text_encoder"
CACHE_BYTES = 2**30  # of a frozen encoder's features, in each process: 7,000 captions of 48 T5-base tokens


@dataclass(frozen=True)
class TextTokens:
    """values: ids (B, L) or features (B, L, D); mask: (B, L) bool, True where there is text."""

    values: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> "TextTokens":
        """On the device; the host does not wait for the copy to a GPU."""
        behind = device.type != "cpu"
        return TextTokens(
            self.values.to(device, non_blocking=behind), self.mask.to(device, non_blocking=behind)
        )

    def repeat(self, batch: int, length: int) -> "TextTokens":
        """This single text (1, l) for a whole batch, padded to (batch, length)."""
        short = length - self.mask.shape[1]
        tail = (0, 0) * (self.values.ndim - 2)
        values, mask = F.pad(self.values, (*tail, 0, short)), F.pad(self.mask, (0, short))
        return TextTokens(values.expand(batch, *values.shape[1:]), mask.expand(batch, length))

    def where(self, keep: Tensor, other: "TextTokens") -> "TextTokens":
        """These texts where `keep` (B,) is True, those of `other` elsewhere; both of one length."""
        shape = (-1, *([1] * (self.values.ndim - 1)))
        return TextTokens(
            torch.where(keep.view(shape), self.values, other.values),
            torch.where(keep.view(-1, 1), self.mask, other.mask),
        )

    def joined(self, other: "TextTokens") -> "TextTokens":
        """Both batches as one, these first."""
        return TextTokens(torch.cat([self.values, other.values]), torch.cat([self.mask, other.mask]))


class TextEncoder(Protocol):
    """Captions to TextTokens.

    identity: what it is, down to vocabulary and weights, wherever it was loaded from; outputs of two
    identities do not mix.
    """

    @property
    def identity(self) -> str: ...

    def __call__(self, captions: Sequence[str]) -> TextTokens:
        """Encode, padded to the longest caption or somewhat more, on the encoder's device."""
        ...

    def to(self, device: torch.device) -> "TextEncoder":
        """With its weights on `device`; a vocabulary has none and stays on the CPU."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load_text_encoder` reads into a model folder."""
        ...


def fit_text_encoder(config: TextConfig, captions: Iterable[str]) -> "LearnedText | FrozenText":
    """A vocabulary learned from `captions`, or the pretrained encoder that the config names."""
    if config.model == LEARNED:
        return LearnedText.fit(captions, config.vocabulary, config.max_length)
    return FrozenText(config.model, config.max_length, config.revision)


def load_text_encoder(config: TextConfig, folder: Path) -> "LearnedText | FrozenText":
    """The encoder that was saved in a model folder."""
    if config.model == LEARNED:
        return LearnedText.load(folder, config.max_length)
    return FrozenText(str(folder / ENCODER_FOLDER), config.max_length)


class LearnedText:
    """A byte-level BPE vocabulary; the DiT embeds its ids and learns them. Id 0 pads, id 1 starts a text."""

    PAD, START = "<pad>", "<start>"

    def __init__(self, tokenizer_json: str, max_length: int) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(tokenizer_json)
        self.max_length = max_length

    @property
    def vocabulary(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    @classmethod
    def fit(cls, captions: Iterable[str], vocabulary: int, max_length: int) -> "LearnedText":
        """Learn the merges from captions; the same captions in the same order give the same vocabulary."""
        tokenizer = train_bpe(captions, vocabulary, special_tokens=[cls.PAD, cls.START], prefix_space=True)
        return cls(tokenizer.to_str(), max_length)

    @classmethod
    def load(cls, folder: Path, max_length: int) -> "LearnedText":
        """Read a saved vocabulary. Raises FileNotFoundError, or InputError if the file is not one."""
        path = folder / TOKENIZER_FILE
        data = path.read_bytes()
        try:
            return cls(data.decode(), max_length)
        except Exception as error:  # tokenizers raises nothing narrower
            raise InputError(f"{path} is not a tokenizer ({error}); make the model again") from error

    @cached_property
    def identity(self) -> str:
        return f"learned:{_digest(self.tokenizer.to_str().encode(), str(self.max_length).encode())}"

    def to(self, device: torch.device) -> "LearnedText":
        return self

    def save(self, folder: Path) -> None:
        (folder / TOKENIZER_FILE).write_text(self.tokenizer.to_str(), encoding="utf-8")

    def __call__(self, captions: Sequence[str]) -> TextTokens:
        encoded = [[1, *e.ids][: self.max_length] for e in self.tokenizer.encode_batch_fast(list(captions))]
        length = padded_length(max(map(len, encoded)), self.max_length)
        values = torch.zeros(len(encoded), length, dtype=torch.long)
        mask = torch.zeros(len(encoded), length, dtype=torch.bool)
        for row, ids in enumerate(encoded):
            values[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = True
        return TextTokens(values, mask)


class FrozenText:
    """Features of a pretrained text encoder by id or path (T5, CLIP's text tower, ...), never trained.

    Each text is encoded alone, without padding, and kept in `cache`: its features are a function of the text,
    to the bit, whatever is beside it and whether or not it was seen before, so that a resumed training (which
    begins with an empty cache) sees the same. Raises InputError where there is no such model. Reads at most
    as many tokens as the model has positions for.
    """

    def __init__(
        self, model: str, max_length: int, revision: str | None = None, *, cache_bytes: int = CACHE_BYTES
    ) -> None:
        try:
            self.tokenizer, encoder = _load_pretrained(model, revision)
        except (OSError, ValueError, KeyError) as error:
            reason = one_line(error, REASON_LENGTH)
            raise InputError(
                f"text encoder '{model}' cannot be loaded ({reason}); give a folder or a hub id of a"
                " transformers text encoder"
            ) from error
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.model = encoder.eval().requires_grad_(False)
        positions = getattr(encoder.config, "max_position_embeddings", max_length)
        self.max_length = min(max_length, self.tokenizer.model_max_length, positions)
        self.cache = FeatureCache(cache_bytes)

    @property
    def features(self) -> int:
        return int(self.model.config.hidden_size)

    @cached_property
    def identity(self) -> str:
        # Truncation and padding are how the tokenizer was last used, not what it is.
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str()) | {"truncation": 0, "padding": 0}
        parts = [json.dumps(tokenizer, sort_keys=True).encode(), str(self.max_length).encode()]
        for name, weights in sorted(self.model.state_dict().items()):
            parts += [f"{name} {weights.dtype} {tuple(weights.shape)}".encode(), _bytes_of(weights)]
        return f"frozen:{_digest(*parts)}"

    def to(self, device: torch.device) -> "FrozenText":
        """Move the model, in place. Its cache is emptied: another device rounds otherwise."""
        before = self.model.device
        self.model.to(device)
        if self.model.device != before:
            self.cache.clear()
        return self

    def save(self, folder: Path) -> None:
        """Save encoder and tokenizer with the model trained on them, so that it needs nothing else."""
        self.model.save_pretrained(folder / ENCODER_FOLDER)
        self.tokenizer.save_pretrained(folder / ENCODER_FOLDER)

    def __call__(self, captions: Sequence[str]) -> TextTokens:
        features = {text: self._features(text) for text in dict.fromkeys(captions)}
        rows = [features[caption] for caption in captions]
        lengths = torch.tensor([len(row) for row in rows])
        values = pad_sequence(rows, batch_first=True).float()  # a half-precision model's are in half
        mask = torch.arange(values.shape[1]) < lengths[:, None]
        return TextTokens(values, mask).to(self.model.device)

    def _features(self, text: str) -> Tensor:
        """The text's features (L, D), on the CPU."""
        features = self.cache.get(text)
        if features is None:
            ids = self.tokenizer(text, truncation=True, max_length=self.max_length).input_ids
            inputs = torch.tensor([ids or [self.tokenizer.pad_token_id]], device=self.model.device)
            with torch.no_grad():
                features = self.model(input_ids=inputs).last_hidden_state[0].cpu()
            self.cache.put(text, features)
        return features


def _load_pretrained(model: str, revision: str | None) -> tuple[Any, Any]:
    """The tokenizer and the text tower of a pretrained model."""
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer

    config = AutoConfig.from_pretrained(model, revision=revision)
    config = getattr(config, "text_config", config)  # CLIP and its kin: the text tower of two
    known = type(config) in AutoModelForTextEncoding._model_mapping
    auto = AutoModelForTextEncoding if known else AutoModel
    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    return tokenizer, auto.from_pretrained(model, revision=revision, config=config)


def _digest(*parts: bytes) -> str:
    """sha256 (hex) of the parts, in this order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _bytes_of(weights: Tensor) -> bytes:
    return weights.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def padded_length(longest: int, most: int, step: int = 8) -> int:
    """Lengths rounded up to a multiple of `step` tokens, so that few different shapes are ever compiled."""
    return min(most, -(-longest // step) * step)
