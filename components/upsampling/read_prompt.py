"""A prompt as the editor reads it (prompt_editor.py): its words, and what may be done to each of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from components.upsampling.content_words import PREPOSITIONS
from components.upsampling.edit_tokens import EditTokens
from components.upsampling.prompt_cleaning import (
    RELATIVE_PRONOUNS,
    are_statements,
    open_places,
    prompt_units,
)
from components.upsampling.prompt_edits import are_one_word, droppable

MOST_PROMPT_TOKENS = 256  # a longer prompt gets no answer


@dataclass(frozen=True)
class ReadPrompt:
    """What all captions of a prompt share.

    prefix: the tokens before the first answer's word; read: those of each unit, and of the tail's place.
    bound: units that stay: a relative pronoun belongs to the word before it, a statement is whole.
    joins: units before which nothing is inserted: those, and the words for a place, which belong to what is
    before them, too, but may be put in another way. small: units that a caption may do without.
    """

    units: tuple[str, ...]
    prefix: tuple[int, ...]
    read: tuple[tuple[int, ...], ...]
    bound: tuple[bool, ...]
    joins: tuple[bool, ...]
    small: tuple[bool, ...]

    @staticmethod
    def of(prompt: str, tokens: EditTokens) -> "ReadPrompt":
        units = prompt_units(prompt)
        bound = tuple(
            is_whole or unit.lower() in RELATIVE_PRONOUNS
            for unit, is_whole in zip(units, are_statements(units), strict=True)
        )
        return ReadPrompt(
            tuple(units),
            tuple(tokens.prompt(units)),
            (*(tuple(tokens.read(unit)) for unit in units), (tokens.split,)),
            bound,
            tuple(b or place for b, place in zip(bound, open_places(units), strict=True)),
            tuple(droppable(units, at) for at in range(len(units))),
        )

    @property
    def can_be_answered(self) -> bool:
        return bool(self.units) and len(self.prefix) <= MOST_PROMPT_TOKENS

    def may_drop(self, at: int, inserted: Sequence[str]) -> bool:
        """Whether the caption can do without: where the same word, singular or plural, or another preposition
        was just inserted in its place, or it is a small word, but no preposition.
        """
        if self.bound[at]:
            return False
        unit, instead = self.units[at], inserted[-1] if inserted else ""
        if unit.lower() in PREPOSITIONS:
            return instead in PREPOSITIONS
        return self.small[at] or are_one_word(unit, instead)
