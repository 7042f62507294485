"""The language model that writes what a prompt leaves open, as edits of it (prompt_upsampler_fit.py).

It can not lose a word that says what is there or how it looks: dropping is not among the answers for those.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from components.generation.content_words import PREPOSITIONS
from components.generation.edit_tokens import EditTokens
from components.generation.language_model import LanguageModel
from components.generation.prompt_cleaning import (
    RELATIVE_PRONOUNS,
    are_statements,
    open_places,
    prompt_units,
)
from components.generation.prompt_edits import Edit, Edits, are_one_word, droppable
from components.generation.sampling_noise import GumbelNoise

MOST_INSERTED = 96  # tokens, in all
MOST_PROMPT_TOKENS = 256  # a longer prompt gets no answer
BATCH = 64  # prompts that are answered together


class PromptEditor:
    """Edits prompts. The same (prompt, seed) gives the same text."""

    def __init__(self, language_model: LanguageModel) -> None:
        """language_model: with the tokens of edit_tokens.py."""
        self.language_model, self.tokens = language_model, EditTokens(language_model.tokenizer)

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], *, temperature: float = 1.0, min_p: float = 0.0
    ) -> list[str]:
        """One caption per prompt, sampled with the noise of its seed; "" for a prompt that is too long."""
        rows = [
            _Row(prompt, self.tokens, GumbelNoise(seed, temperature, min_p))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        open_rows = [row for row in rows if row.units and len(row.prefix) <= MOST_PROMPT_TOKENS]
        for at in range(0, len(open_rows), BATCH):
            batch = open_rows[at : at + BATCH]
            most = max(row.most_tokens for row in batch)
            self.language_model.continued(
                [row.prefix for row in batch], [row.next_token for row in batch], most
            )
        return [row.caption for row in rows]


class _Row:
    """One prompt on its way: which of its words is being answered, and what was answered."""

    def __init__(self, prompt: str, tokens: EditTokens, noise: GumbelNoise) -> None:
        self.units, self.tokens, self.noise = prompt_units(prompt), tokens, noise
        self.prefix = tokens.prompt(self.units)
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
        self.shown = self._read()

    @property
    def most_tokens(self) -> int:
        """Of its answers and the words between them."""
        return len(self.prefix) + len(self.units) + MOST_INSERTED + 2

    def next_token(self, scores: Tensor) -> int:
        """The next token of this row: of the word that it reads, or sampled. scores: (V,)."""
        if self.shown:
            return self.shown.pop(0)
        if self.caption:
            return self.tokens.end
        token = self.noise.sample(scores + self._forbidden(len(scores)))
        if token in (self.tokens.keep, self.tokens.drop):
            self.edits.append(Edit(self.tokens.decode(self.inserted), token == self.tokens.keep))
            self.inserted = []
            self.shown = self._read()
        elif token == self.tokens.end:
            tail = self.tokens.decode(self.inserted)
            self.caption = Edits(tuple(self.units), tuple(self.edits), tail).applied()
        else:
            self.inserted.append(token)
            self.left -= 1
        return token

    def _read(self) -> list[int]:
        """The tokens of the word that is answered next."""
        at = len(self.edits)
        return list(self.tokens.read(self.units[at])) if at < len(self.units) else [self.tokens.split]

    def _forbidden(self, size: int) -> Tensor:
        """-inf for what is no answer here (V,), else 0."""
        tokens, at = self.tokens, len(self.edits)
        is_tail = at == len(self.units)
        is_bound = not is_tail and self.bound[at]
        closed = self.left == 0 or (not is_tail and self.joins[at])
        forbidden = torch.full((size,), -torch.inf if closed else 0.0)
        forbidden[[tokens.pad, tokens.split, tokens.other, tokens.keep, tokens.drop, tokens.end]] = -torch.inf
        if is_tail:
            forbidden[tokens.end] = 0
            return forbidden
        forbidden[tokens.keep] = 0
        if not is_bound and self._may_drop(at):
            forbidden[tokens.drop] = 0
        return forbidden

    def _may_drop(self, at: int) -> bool:
        """Whether the caption can do without: where the same word, singular or plural, or another preposition
        was just inserted in its place, or it is a small word, but no preposition.
        """
        unit = self.units[at]
        instead = (self.tokens.decode(self.inserted) or ("",))[-1]
        if unit.lower() in PREPOSITIONS:
            return instead in PREPOSITIONS
        return droppable(self.units, at) or are_one_word(unit, instead)
