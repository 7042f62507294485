"""The words of a prompt as the upsampler edits them: without openings, and with adjectives before their noun.

"Please draw a circle that is large and red" asks for "a large red circle". Rules of English, for any domain;
what they do not know stays as it is.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from components.upsampling.content_words import (
    CARRY_NOTHING,
    NUMBER_WORDS,
    OPENING_NOUNS,
    OPENING_VERBS,
    SPATIAL,
    words_of,
)

# A place of two words is one unit, as neither of them alone is where it is.
PLACES = tuple(f"{row} {side}" for row in ("top", "bottom", "upper", "lower") for side in ("left", "right"))
_UNIT = re.compile(rf"\b(?:{'|'.join(PLACES)})\b|\w+(?:['’\-]\w+)*|[^\w\s]", re.IGNORECASE)
SENTENCE_END = frozenset(".!?;")
VERBS = frozenset({"is", "are"})
PLACE_PREPOSITIONS = frozenset({"at", "in", "on", "near", "by", "towards", "toward"})
RELATIVE_PRONOUNS = frozenset({"that", "which", "who"})

_OPENERS = frozenset({*OPENING_NOUNS, *OPENING_VERBS})
_AFTER_OPENERS = frozenset({"of", "me", "us", "to"})
_NO_SUBJECTS = RELATIVE_PRONOUNS | {"there", "here", "this", "it"}


def prompt_units(prompt: str) -> list[str]:
    """Its words and marks, each sentence without its opening and with its adjectives in front."""
    units: list[str] = []
    for sentence in _sentences(units_of(prompt)):
        units += with_adjectives_in_front(_without_opening(sentence))
    return units


def units_of(text: str) -> list[str]:
    """Its words and marks; "top left" is one."""
    return _UNIT.findall(" ".join(text.split()))


def are_statements(units: Sequence[str]) -> list[bool]:
    """For each unit whether its sentence is a statement of its own: "the background is black"."""
    result: list[bool] = []
    for sentence in _sentences(units):
        states = any(
            verb.lower() in VERBS and subject.lower() not in _NO_SUBJECTS and bool(words_of(subject))
            for subject, verb in pairwise(sentence)
        )
        result += [states] * len(sentence)
    return result


def open_places(units: Sequence[str]) -> list[bool]:
    """For each unit whether it opens the words for a place, which belong to what is before: "on the left"."""
    result: list[bool] = []
    for at, unit in enumerate(units):
        rest = [word.lower() for word in units[at + 1 : at + 4]]
        place = rest[1:] if rest[:1] == ["the"] else rest
        is_place = bool(place) and all(word in SPATIAL for word in place[0].split())
        is_relation = place[1:2] == ["of"]  # "in front of a wall", "on the left of a dog"
        result.append(unit.lower() in PLACE_PREPOSITIONS and is_place and not is_relation)
    return result


def with_adjectives_in_front(units: Sequence[str]) -> list[str]:
    """Writes "a circle that is large and red" as "a large red circle". Other clauses stay as they are."""
    result: list[str] = []
    at = 0
    while at < len(units):
        adjectives, after = _adjectives_of_clause(units, at)
        first = _start_of_noun_phrase(result)
        if not adjectives or first == len(result):
            result.append(units[at])
            at += 1
            continue
        result[first:first] = adjectives
        if first and result[first - 1].lower() in ("a", "an"):
            article = "an" if adjectives[0][0].lower() in "aeiou" else "a"
            result[first - 1] = article.capitalize() if result[first - 1][0].isupper() else article
        at = after
    return result


def _adjectives_of_clause(units: Sequence[str], at: int) -> tuple[list[str], int]:
    """The adjectives of the relative clause that begins here, and where it ends; none where none does."""
    opens = len(units) > at + 2 and units[at].lower() in RELATIVE_PRONOUNS and units[at + 1].lower() in VERBS
    if not opens:
        return [], at
    adjectives: list[str] = []
    at += 2
    while at < len(units) and _is_content(units[at]):
        adjectives.append(units[at])
        at += 1
        goes_on = at + 1 < len(units) and units[at].lower() == "and" and _is_content(units[at + 1])
        at += goes_on
    return adjectives, at


def _start_of_noun_phrase(units: Sequence[str]) -> int:
    """Where the words of content begin that the units end with."""
    start = len(units)
    while start and _is_content(units[start - 1]):
        start -= 1
    return start


def _is_content(unit: str) -> bool:
    words = words_of(unit)
    small = CARRY_NOTHING | SPATIAL | {*NUMBER_WORDS}
    return bool(words) and not any(word in small or word.isdecimal() for word in words)


def _sentences(units: Sequence[str]) -> list[list[str]]:
    """Each with its mark."""
    sentences: list[list[str]] = [[]]
    for unit in units:
        sentences[-1].append(unit)
        if unit in SENTENCE_END:
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def _without_opening(sentence: Sequence[str]) -> list[str]:
    """Without "please draw me a picture of", which says nothing about the image."""
    run = 0  # units before the first that carries something
    while run < len(sentence) and all(word in CARRY_NOTHING for word in words_of(sentence[run])):
        run += 1
    opening = max((at + 1 for at in range(run) if sentence[at].lower() in _OPENERS), default=0)
    if run == len(sentence) or not opening:
        return list(sentence)
    while opening < run and (sentence[opening].lower() in _AFTER_OPENERS or not words_of(sentence[opening])):
        opening += 1
    rest = list(sentence[opening:])
    if sentence[0][0].isupper():
        rest[0] = rest[0][:1].upper() + rest[0][1:]
    return rest
