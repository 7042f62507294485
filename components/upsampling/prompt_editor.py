"""The language model that writes what a prompt leaves open, as edits of it (prompt_upsampler_fit.py).

It can not lose a word that says what is there or how it looks: dropping is not among the answers for those.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from components.upsampling.caption_session import write_all
from components.upsampling.content_words import PREPOSITIONS
from components.upsampling.edit_tokens import EditTokens
from components.upsampling.language_model import LanguageModel
from components.upsampling.lfm2_decoder import Lfm2Decoder
from components.upsampling.prompt_cleaning import (
    RELATIVE_PRONOUNS,
    are_statements,
    open_places,
    prompt_units,
)
from components.upsampling.prompt_edits import Edit, Edits, are_one_word, droppable
from components.upsampling.sampling_noise import GumbelNoise, sample

MOST_INSERTED = 96  # tokens, in all
MOST_PROMPT_TOKENS = 256  # a longer prompt gets no answer
MOST_ROWS = 64  # prompts that are answered together
BEGIN_TOGETHER = 4
CLOSED, TAIL, DROPPABLE = 1, 2, 4  # nothing may be inserted; no word is left; the word may be dropped


class PromptEditor:
    """Edits prompts. The same (prompt, seed) gives the same text."""

    def __init__(self, language_model: LanguageModel) -> None:
        """language_model: with the tokens of edit_tokens.py."""
        self.language_model, self.tokens = language_model, EditTokens(language_model.tokenizer)

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], *, temperature: float = 1.0, min_p: float = 0.0
    ) -> list[str]:
        """One caption per prompt, sampled with the noise of its seed; "" for a prompt that is too long."""
        return write_all(self.begin(temperature=temperature, min_p=min_p), prompts, seeds)

    def begin(self, *, temperature: float = 1.0, min_p: float = 0.0) -> "EditSession":
        """Captions that are written side by side, to which others can be added on the way."""
        return EditSession(self, temperature, min_p)

    @cached_property
    def forbidden(self) -> Tensor:
        """-inf for what is no answer, else 0, (8, V): by _Row.answers."""
        tokens, numbers = self.tokens, torch.arange(8)
        forbidden = torch.zeros(8, self.language_model.model.config.vocab_size)
        forbidden[(numbers & CLOSED) > 0] = -torch.inf
        forbidden[:, [tokens.pad, tokens.split, tokens.other]] = -torch.inf
        is_tail = (numbers & TAIL) > 0
        forbidden[:, tokens.keep] = torch.where(is_tail, -torch.inf, 0.0)
        forbidden[:, tokens.drop] = torch.where((numbers & DROPPABLE) > 0, 0.0, -torch.inf)
        forbidden[:, tokens.end] = torch.where(is_tail, 0.0, -torch.inf)
        return forbidden


class EditSession:
    """A CaptionSession of an editor: each pass through the network gives every row its next token."""

    def __init__(self, editor: PromptEditor, temperature: float, min_p: float) -> None:
        self.editor, self.temperature, self.min_p = editor, temperature, min_p
        self._decoder = Lfm2Decoder(editor.language_model.model)
        self._waiting: deque[_Row] = deque()
        self._rows: list[_Row] = []  # as the decoder numbers them

    def __len__(self) -> int:
        return len(self._waiting) + len(self._rows)

    def add(self, key: Any, prompt: str, seed: int) -> None:
        self._waiting.append(_Row(key, prompt, self.editor.tokens, seed))

    def retain(self, is_wanted: Callable[[Any], bool]) -> None:
        self._waiting = deque(row for row in self._waiting if is_wanted(row.key))
        for number in reversed(range(len(self._rows))):
            if not is_wanted(self._rows[number].key):
                self._remove(number)

    def advance(self) -> dict[Any, str]:
        captions = {row.key: "" for row in self._waiting if not row.can_be_answered}
        self._waiting = deque(row for row in self._waiting if row.can_be_answered)
        old, new = self._rows, self._new_rows()
        self._rows = old + new
        if not self._rows:
            return captions
        parts = [(0, old), (len(old), new)]
        scores = [self._decoder.scores([row.chunk for row in rows], first) for first, rows in parts if rows]
        forbidden = self.editor.forbidden[[row.answers for row in self._rows]]
        noises = [row.noise for row in self._rows]
        allowed = torch.cat(scores).float().cpu() + forbidden
        tokens = sample(allowed, noises, temperature=self.temperature, min_p=self.min_p)
        for row, token in zip(self._rows, tokens, strict=True):
            row.take(token)
        for number in reversed(range(len(self._rows))):
            if not self._rows[number].chunk:
                captions[self._rows[number].key] = self._rows[number].caption
                self._remove(number)
        return captions

    def _new_rows(self) -> list["_Row"]:
        """Those that begin now: a prompt is read in a pass of its own, so some are waited for."""
        if len(self._waiting) < BEGIN_TOGETHER and len(self._rows) > MOST_ROWS // 8:
            return []
        free = MOST_ROWS - len(self._rows)
        return [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]

    def _remove(self, number: int) -> None:
        self._decoder.remove(number)
        self._rows[number] = self._rows[-1]
        self._rows.pop()


class _Row:
    """One prompt on its way: which of its words is being answered, and what was answered."""

    def __init__(self, key: Any, prompt: str, tokens: EditTokens, seed: int) -> None:
        self.key, self.tokens, self.noise = key, tokens, GumbelNoise(seed)
        self.units = prompt_units(prompt)
        prefix = tokens.prompt(self.units)
        self.can_be_answered = bool(self.units) and len(prefix) <= MOST_PROMPT_TOKENS
        # A relative pronoun belongs to the word before it, a statement is whole: both stay as they are. The
        # words for a place belong to what is before them, too, but may be put in another way.
        self.bound = [
            is_whole or unit.lower() in RELATIVE_PRONOUNS
            for unit, is_whole in zip(self.units, are_statements(self.units), strict=True)
        ]
        self.joins = [b or p for b, p in zip(self.bound, open_places(self.units), strict=True)]
        self.edits: list[Edit] = []
        self.inserted: list[int] = []
        self.left = MOST_INSERTED
        self.caption = ""
        self.chunk = [
            *prefix,
            *self._read(),
        ]  # what the network reads next; nothing once the caption is whole

    @property
    def answers(self) -> int:
        """What may be answered here: which of CLOSED, TAIL and DROPPABLE hold."""
        at = len(self.edits)
        if at == len(self.units):
            return TAIL | CLOSED * (self.left == 0)
        is_closed = self.left == 0 or self.joins[at]
        return CLOSED * is_closed | DROPPABLE * (not self.bound[at] and self._may_drop(at))

    def take(self, token: int) -> None:
        """Go on by an answer."""
        if token in (self.tokens.keep, self.tokens.drop):
            self.edits.append(Edit(self.tokens.decode(self.inserted), token == self.tokens.keep))
            self.inserted = []
            self.chunk = [token, *self._read()]
        elif token == self.tokens.end:
            tail = self.tokens.decode(self.inserted)
            self.caption = Edits(tuple(self.units), tuple(self.edits), tail).applied()
            self.chunk = []
        else:
            self.inserted.append(token)
            self.left -= 1
            self.chunk = [token]

    def _read(self) -> list[int]:
        """The tokens of the word that is answered next."""
        at = len(self.edits)
        return self.tokens.read(self.units[at]) if at < len(self.units) else [self.tokens.split]

    def _may_drop(self, at: int) -> bool:
        """Whether the caption can do without: where the same word, singular or plural, or another preposition
        was just inserted in its place, or it is a small word, but no preposition.
        """
        unit = self.units[at]
        instead = ("", *self.tokens.decode(self.inserted))[-1] if self.inserted else ""
        if unit.lower() in PREPOSITIONS:
            return instead in PREPOSITIONS
        return droppable(self.units, at) or are_one_word(unit, instead)
