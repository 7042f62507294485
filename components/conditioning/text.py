"""Text as the DiT sees it: ids of a learned vocabulary, or the features of a frozen pretrained encoder.

The null text (for guidance) is the empty caption; both encoders give it a token, so that attention always
has something to attend to. What a text is encoded to depends on nothing but the text.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch

from components.conditioning.bpe import train_bpe
from components.conditioning.config import LEARNED, TextConfig
from components.conditioning.frozen_text import ENCODER_FOLDER, FrozenText, PretrainedText
from components.conditioning.identity import digest
from components.conditioning.open_clip_text import LOCAL, OpenClipText, of_open_clip
from components.conditioning.sd3_text import PREFIX, SD3Text
from components.conditioning.text_tokens import TextTokens
from components.errors import InputError

TOKENIZER_FILE = "tokenizer.json"


class TextEncoder(Protocol):
    """Captions to TextTokens.

    identity: what it is, down to vocabulary and weights, wherever it was loaded from; outputs of two
    identities do not mix. max_length: tokens of a caption that are read, at most.
    """

    max_length: int

    @property
    def identity(self) -> str: ...

    def __call__(self, captions: Sequence[str]) -> TextTokens:
        """Encode, padded to the longest caption or somewhat more, on the encoder's device."""
        ...

    def count_cut(self, captions: Sequence[str]) -> int:
        """How many have more tokens than are read; the encoder cuts them off."""
        ...

    def to(self, device: torch.device) -> "TextEncoder":
        """With its weights on `device`; a vocabulary has none and stays on the CPU."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load_text_encoder` reads into a model folder."""
        ...


def fit_text_encoder(config: TextConfig, captions: Iterable[str]) -> "LearnedText | PretrainedText":
    """A vocabulary learned from `captions`, or the pretrained encoder that the config names."""
    if config.model == LEARNED:
        return LearnedText.fit(captions, config.vocabulary, config.max_length)
    return load_pretrained_text(config)


def load_text_encoder(config: TextConfig, folder: Path) -> "LearnedText | PretrainedText":
    """The encoder that was saved in a model folder."""
    if config.model == LEARNED:
        return LearnedText.load(folder, config.max_length)
    saved = str(folder / ENCODER_FOLDER)
    if of_open_clip(config.model):
        saved = f"{LOCAL}{saved}"
    elif config.model.startswith(PREFIX):
        saved = f"{PREFIX}{saved}"
    return load_pretrained_text(config.model_copy(update={"model": saved, "revision": None}))


def load_pretrained_text(config: TextConfig) -> PretrainedText:
    """The frozen encoder that the config names. Raises InputError, one line, where there is none."""
    if of_open_clip(config.model):
        return OpenClipText(config.model, config.max_length, dtype=config.dtype)
    if config.model.startswith(PREFIX):
        return SD3Text(config.model)
    return FrozenText(
        config.model, config.max_length, config.revision, dtype=config.dtype, layer=config.layer
    )


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
        return f"learned:{digest(self.tokenizer.to_str().encode(), str(self.max_length).encode())}"

    def count_cut(self, captions: Sequence[str]) -> int:
        return sum(len(ids) > self.max_length for ids in self._ids(captions))

    def to(self, device: torch.device) -> "LearnedText":
        return self

    def save(self, folder: Path) -> None:
        (folder / TOKENIZER_FILE).write_text(self.tokenizer.to_str(), encoding="utf-8")

    def __call__(self, captions: Sequence[str]) -> TextTokens:
        encoded = [ids[: self.max_length] for ids in self._ids(captions)]
        length = padded_length(max(map(len, encoded)), self.max_length)
        values = torch.zeros(len(encoded), length, dtype=torch.long)
        mask = torch.zeros(len(encoded), length, dtype=torch.bool)
        for row, ids in enumerate(encoded):
            values[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = True
        return TextTokens(values, mask)

    def _ids(self, captions: Sequence[str]) -> list[list[int]]:
        """Of each whole caption, the start's included."""
        return [[1, *encoded.ids] for encoded in self.tokenizer.encode_batch_fast(list(captions))]


def padded_length(longest: int, most: int, step: int = 8) -> int:
    """Lengths rounded up to a multiple of `step` tokens, so that few different shapes are ever compiled."""
    return min(most, -(-longest // step) * step)
