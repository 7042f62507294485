"""A long caption as edits of the prompt: each word is kept or dropped, and words are inserted before it.

So the language model writes only what the prompt leaves open (Malmi 2019, "Encode, Tag, Realize"): words that
are kept are copied, whether it has ever seen them or not. What names a thing or says how it looks can not be
dropped at all (`may_drop`). prompt_upsampler_fit.py learns these edits, prompt_editor.py samples them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from components.upsampling.content_words import (
    CARRY_NOTHING,
    NUMBER_WORDS,
    SPATIAL,
    forms_of,
    words_of,
)
from components.upsampling.prompt_cleaning import SENTENCE_END, prompt_units, units_of

_STICKS_TO_THE_LAST = frozenset(".,;:!?)]}%")
_STICKS_TO_THE_NEXT = frozenset("([{#$")

# Scores of an alignment: that a word of content finds its own outweighs any number of small words, and
# neighbours that stay neighbours outweigh a small word elsewhere.
_CONTENT, _SMALL, _NEIGHBOURS = 100.0, 1.0, 0.75


@dataclass(frozen=True)
class Edit:
    """Of one unit: what is inserted before it, and whether it is kept."""

    insert: tuple[str, ...]
    keep: bool


@dataclass(frozen=True)
class Edits:
    """One Edit for each unit of a prompt, and what is written after the last."""

    units: tuple[str, ...]
    edits: tuple[Edit, ...]
    tail: tuple[str, ...]

    def applied(self) -> str:
        """The caption; in sentence case where the prompt begins so."""
        capitals = self.units[:1] != () and self.units[0][:1].isupper()
        units = _uncapitalised(self.units) if capitals else self.units
        written: list[str] = []
        for unit, edit in zip(units, self.edits, strict=True):
            written += [*edit.insert, *([unit] if edit.keep else [])]
        return joined([*written, *self.tail], capitals=capitals)


def joined(units: Sequence[str], *, capitals: bool = False) -> str:
    """Units as a text. capitals: one at each sentence's start."""
    text, last = "", "."
    for unit in units:
        sticks = unit in _STICKS_TO_THE_LAST or last in _STICKS_TO_THE_NEXT
        written = unit[:1].upper() + unit[1:] if capitals and last in SENTENCE_END else unit
        text += written if sticks or not text else f" {written}"
        last = unit
    return text


def droppable(units: Sequence[str], at: int) -> bool:
    """Whether a caption may do without this unit of a prompt: `may_drop`, but the sentences stay apart."""
    return may_drop(units[at]) and not (units[at] in SENTENCE_END and at < len(units) - 1)


@lru_cache(maxsize=65_536)
def may_drop(unit: str) -> bool:
    """Whether a caption may say it in other words: marks, numbers, places, and what carries nothing.

    What is left is in all captions of the prompt: nouns, colours, every word that is not known to be small.
    """
    words = words_of(unit)
    return all(word in CARRY_NOTHING or word in SPATIAL or word in NUMBER_WORDS for word in words)


def edits_of(prompt: str, caption: str) -> Edits | None:
    """The edits that turn the prompt into the caption, but for capitals.

    None where there are none: a word of the prompt that may not be dropped has no place in the caption.
    """
    units, target = prompt_units(prompt), _uncapitalised(units_of(caption))
    places = _aligned(units, target)
    if any(place is None and not droppable(units, at) for at, place in enumerate(places)):
        return None
    edits: list[Edit] = []
    written = 0  # units of the target
    for unit, place in zip(units, places, strict=True):
        if place is None:
            edits.append(Edit((), keep=False))
            continue
        keep = unit.lower() == target[place].lower()
        edits.append(Edit(tuple(target[written : place + (not keep)]), keep))
        written = place + 1
    return Edits(tuple(units), tuple(edits), tuple(target[written:]))


def _uncapitalised(units: Sequence[str]) -> list[str]:
    """Without the capitals of sentences' starts, as `joined` gives them."""
    starts = [True, *(unit in SENTENCE_END for unit in units)]
    return [u[:1].lower() + u[1:] if start else u for u, start in zip(units, starts, strict=False)]


def _aligned(units: Sequence[str], target: Sequence[str]) -> list[int | None]:
    """For each unit the place in the target of the same word, singular or plural; places only grow.

    The best by the sum of the scores above: dynamic programming over (unit, place).
    """
    places: dict[str, set[int]] = {}  # of each word and each form of a word of content in the target
    for j, other in enumerate(target):
        for form in (other.lower(), *_key(other)):
            places.setdefault(form, set()).add(j)
    best = [[0.0] * (len(target) + 1)]  # best[i][j]: of what is before (unit i, place j)
    ending = [[0.0] * (len(target) + 1)]  # where the two before are a pair; 0: they are none
    for unit in units:
        value = _SMALL if may_drop(unit) else _CONTENT
        above, pairs = best[-1], [0.0] * (len(target) + 1)
        for j in set().union(*(places.get(form, ()) for form in (unit.lower(), *_key(unit)))):
            before = ending[-1][j]
            pairs[j + 1] = value + max(above[j], before + _NEIGHBOURS if before else 0.0)
        best.append(list(accumulate(map(max, above, pairs), max)))
        ending.append(pairs)
    return _traced(best, ending)


def _traced(best: list[list[float]], ending: list[list[float]]) -> list[int | None]:
    """The alignment of the highest score, from its end."""
    places: list[int | None] = [None] * (len(best) - 1)
    i, j = len(best) - 1, len(best[0]) - 1
    must_pair = False
    while i and j:
        paired = ending[i][j]
        if paired and (must_pair or paired >= best[i][j]):
            places[i - 1] = j - 1
            i, j = i - 1, j - 1
            must_pair = ending[i][j] > 0 and ending[i][j] + _NEIGHBOURS >= best[i][j]
        elif best[i][j] == best[i - 1][j]:
            i -= 1
        else:
            j -= 1
    return places


def are_one_word(unit: str, other: str) -> bool:
    """Whether they are the same, or the same word of content in singular and plural."""
    return unit.lower() == other.lower() or not _key(unit).isdisjoint(_key(other))


@lru_cache(maxsize=65_536)
def _key(unit: str) -> frozenset[str]:
    """The forms in which a word of content is the same word; none of a mark or a small word."""
    words = words_of(unit)
    if may_drop(unit) and not any(word in NUMBER_WORDS for word in words):
        return frozenset()
    return forms_of(words)
