"""Edits of a prompt as tokens of a causal language model.

    prompt, newline | word, what is inserted before it, keep or drop | word, … | newline, the tail, end

The whole prompt stands first, so that what comes later in it is known; then each of its words is read once
more, and answered. Only the answers are learned and sampled. Words are encoded in lower case.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from components.captioning.architecture import END, PAD
from components.captioning.packing import IGNORED
from components.conditioning.bpe import train_bpe
from components.generation.prompt_edits import Edits, units_of

KEEP, DROP, SPLIT = "<keep>", "<drop>", "<split>"


class EditTokens:
    """A tokenizer of transformers as edits use it: a unit at a time, with a space before it."""

    def __init__(self, tokenizer: Any) -> None:
        """Raises ValueError where the tokenizer is not of `train_edit_tokenizer`."""
        self.tokenizer = tokenizer
        names = tokenizer.get_vocab()
        if not {KEEP, DROP, SPLIT, END, PAD} <= set(names):
            raise ValueError("the tokenizer has no tokens for edits")
        self.keep, self.drop, self.split, self.end, self.pad = (
            names[name] for name in (KEEP, DROP, SPLIT, END, PAD)
        )
        self._known: dict[str, list[int]] = {}

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

    def prompt(self, units: Sequence[str]) -> list[int]:
        """What stands before the first answer's word: the prompt and the split."""
        return [*self.units(unit.lower() for unit in units), self.split]

    def decode(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The units of inserted tokens."""
        return tuple(units_of(self.tokenizer.decode(ids, skip_special_tokens=True)))

    def sequence(self, edits: Edits) -> tuple[list[int], list[int]]:
        """Tokens and labels (IGNORED where nothing is learned) of a prompt and its edits."""
        tokens = self.prompt(edits.units)
        labels = [IGNORED] * len(tokens)
        for unit, edit in zip(edits.units, edits.edits, strict=True):
            shown = self.unit(unit.lower())
            answer = [*self.units(edit.insert), self.keep if edit.keep else self.drop]
            tokens += [*shown, *answer]
            labels += [*[IGNORED] * len(shown), *answer]
        tail = [*self.units(edits.tail), self.end]
        return [*tokens, self.split, *tail], [*labels, IGNORED, *tail]


def train_edit_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE of at most `vocabulary` tokens, of words with a space before them."""
    from transformers import PreTrainedTokenizerFast

    spaced = (" ".join(["", *units_of(text)]) for text in texts)
    special = (PAD, END, KEEP, DROP, SPLIT)
    return PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(spaced, vocabulary, special_tokens=special, prefix_space=False),
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[KEEP, DROP, SPLIT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
