"""Text as the DiT sees it: ids of a learned vocabulary, or the features of a frozen pretrained encoder.

The null text (for guidance) is the empty caption; both encoders give it one token, so attention always has
something to look at.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from components.conditioning.bpe import train_bpe
from components.conditioning.config import LEARNED, TextConfig

TOKENIZER_FILE = "tokenizer.json"
ENCODER_FOLDER = "text_encoder"


@dataclass(frozen=True)
class TextTokens:
    """values: ids (B, L) or features (B, L, D); mask: (B, L) bool, True where there is text."""

    values: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> "TextTokens":
        return TextTokens(self.values.to(device), self.mask.to(device))

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
    """Captions to TextTokens."""

    def __call__(self, captions: Sequence[str], length: int | None = None) -> TextTokens:
        """Encode; padded to `length` tokens, or to the longest caption rounded up (see `padded_length`)."""
        ...

    def save(self, folder: Path) -> None: ...


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
        """Read a saved vocabulary. Raises FileNotFoundError, or ValueError if the file is not one."""
        path = folder / TOKENIZER_FILE
        data = path.read_bytes()
        try:
            return cls(data.decode(), max_length)
        except Exception as error:  # tokenizers raises nothing narrower
            raise ValueError(f"{path} is not a tokenizer ({error}); make the model again") from error

    def save(self, folder: Path) -> None:
        (folder / TOKENIZER_FILE).write_text(self.tokenizer.to_str(), encoding="utf-8")

    def __call__(self, captions: Sequence[str], length: int | None = None) -> TextTokens:
        encoded = [[1, *e.ids][: self.max_length] for e in self.tokenizer.encode_batch_fast(list(captions))]
        length = length or padded_length(max(map(len, encoded)), self.max_length)
        values = torch.zeros(len(encoded), length, dtype=torch.long)
        mask = torch.zeros(len(encoded), length, dtype=torch.bool)
        for row, ids in enumerate(encoded):
            kept = ids[:length]
            values[row, : len(kept)] = torch.tensor(kept)
            mask[row, : len(kept)] = True
        return TextTokens(values, mask)


class FrozenText:
    """Features of a pretrained text encoder by id or path (T5, CLIP's text tower, ...), never trained.

    Raises ValueError where there is no such model. Reads at most as many tokens as the model has places for.
    """

    def __init__(self, model: str, max_length: int, revision: str | None = None) -> None:
        try:
            self.tokenizer, encoder = _load_pretrained(model, revision)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"text encoder '{model}' cannot be loaded ({reason}); give a folder or a hub id of a"
                " transformers text encoder"
            ) from error
        self.tokenizer.padding_side = "right"  # a text's places do not depend on the longest one beside it
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.model = encoder.eval().requires_grad_(False)
        places = getattr(encoder.config, "max_position_embeddings", max_length)
        self.max_length = min(max_length, self.tokenizer.model_max_length, places)

    @property
    def features(self) -> int:
        return int(self.model.config.hidden_size)

    def save(self, folder: Path) -> None:
        """Save encoder and tokenizer with the model trained on them, so that it needs nothing else."""
        self.model.save_pretrained(folder / ENCODER_FOLDER)
        self.tokenizer.save_pretrained(folder / ENCODER_FOLDER)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str], length: int | None = None) -> TextTokens:
        given = self.tokenizer(
            list(captions),
            padding="max_length" if length else True,
            max_length=length or self.max_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.model.device)
        mask = given["attention_mask"].bool()
        mask[:, 0] = True
        features = self.model(**given).last_hidden_state
        return TextTokens(features.float(), mask)  # those of a half-precision checkpoint are in half, too


def _load_pretrained(model: str, revision: str | None) -> tuple[Any, Any]:
    """The tokenizer and the text tower of a pretrained model."""
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer

    config = AutoConfig.from_pretrained(model, revision=revision)
    config = getattr(config, "text_config", config)  # CLIP and its kin: the text tower of two
    known = type(config) in AutoModelForTextEncoding._model_mapping
    auto = AutoModelForTextEncoding if known else AutoModel
    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    return tokenizer, auto.from_pretrained(model, revision=revision, config=config)


def padded_length(longest: int, most: int, step: int = 8) -> int:
    """Lengths rounded up to a multiple of `step` tokens, so that few different shapes are ever compiled."""
    return min(most, -(-longest // step) * step)
