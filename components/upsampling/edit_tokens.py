"""Edits of a prompt as tokens of a causal language model.

    prompt, newline | word, what is inserted before it, keep or drop | word, … | newline, the tail, end

The whole prompt stands first, so that what comes later in it is known; then each of its words is read once
more, and answered. Only the answers are learned and sampled. Words are encoded in lower case; small words
("towards") that are no token, as no caption has them, are all read as one token. A place of two words is one
token: that it is taken then can be seen at a glance.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from components.captioning.architecture import END, PAD
from components.captioning.packing import IGNORED
from components.conditioning.bpe import train_bpe
from components.upsampling.content_words import CARRY_NOTHING, PLACE_NOUNS
from components.upsampling.prompt_cleaning import PLACES, units_of
from components.upsampling.prompt_edits import Edits

KEEP, DROP, SPLIT, OTHER = "<keep>", "<drop>", "<split>", "<other>"
SPECIAL = (PAD, END, KEEP, DROP, SPLIT, OTHER)

MOST_DECODED = 65_536  # that are kept

_SMALL = CARRY_NOTHING | PLACE_NOUNS


class EditTokens:
    """A tokenizer of transformers as edits use it: a unit at a time, with a space before it."""

    def __init__(self, tokenizer: Any) -> None:
        """tokenizer: of `train_edit_tokenizer`."""
        self.tokenizer = tokenizer
        names = tokenizer.get_vocab()
        self.pad, self.end, self.keep, self.drop, self.split, self.other = (names[name] for name in SPECIAL)
        self._known: dict[str, list[int]] = {}
        self._decoded: dict[tuple[int, ...], tuple[str, ...]] = {}  # captions say much in the same words

    def __len__(self) -> int:
        return len(self.tokenizer)

    def unit(self, unit: str) -> list[int]:
        """The ids of one word or mark."""
        if unit not in self._known:
            self._known[unit] = self.tokenizer(f" {unit}", add_special_tokens=False).input_ids
        return self._known[unit]

    def units(self, units: Iterable[str]) -> list[int]:
        """The ids of several."""
        return [token for unit in units for token in self.unit(unit)]

    def read(self, unit: str) -> list[int]:
        """The ids of a word or mark of a prompt."""
        ids = self.unit(unit.lower()) if unit != OTHER else [self.other]
        return [self.other] if len(ids) > 1 and unit.lower() in _SMALL else ids

    def prompt(self, units: Sequence[str]) -> list[int]:
        """What stands before the first answer's word: the prompt and the split."""
        return [*(token for unit in units for token in self.read(unit)), self.split]

    def decode(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The units of inserted tokens; bytes that are no text are left out."""
        known = tuple(ids)
        if known not in self._decoded:
            if len(self._decoded) >= MOST_DECODED:
                self._decoded.clear()
            self._decoded[known] = tuple(units_of(self.tokenizer.decode(ids).replace("\ufffd", " ")))
        return self._decoded[known]

    def sequence(self, edits: Edits) -> tuple[list[int], list[int]]:
        """Tokens and labels (IGNORED where nothing is learned) of a prompt and its edits."""
        tokens = self.prompt(edits.units)
        labels = [IGNORED] * len(tokens)
        for unit, edit in zip(edits.units, edits.edits, strict=True):
            shown = self.read(unit)
            answer = [*self.units(edit.insert), self.keep if edit.keep else self.drop]
            tokens += [*shown, *answer]
            labels += [*[IGNORED] * len(shown), *answer]
        tail = [*self.units(edits.tail), self.end]
        return [*tokens, self.split, *tail], [*labels, IGNORED, *tail]


def is_edit_tokenizer(tokenizer: Any) -> bool:
    """Whether it has the tokens that edits are written with."""
    return set(SPECIAL) <= tokenizer.get_vocab().keys()


def train_edit_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE of at most `vocabulary` tokens, of words with a space before them."""
    from transformers import PreTrainedTokenizerFast

    spaced = (" ".join(["", *units_of(text)]) for text in texts)
    special = (*SPECIAL, *(f" {place}" for place in PLACES))
    return PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(spaced, vocabulary, special_tokens=special, prefix_space=False),
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[KEEP, DROP, SPLIT, OTHER],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
