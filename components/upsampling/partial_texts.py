"""Prompts made from a record's captions: any part of the long one, the short one, the alt text, or the whole.

What a user types says some of what a long caption says, in another order and in other dress. The upsampler's
training pairs (prompt_upsampler_fit.py) are made here, without knowing a grammar: a caption is cut into items
("a red circle", "a small dog on a sofa"), these into a head and phrases that a preposition opens. What the
short caption introduces is the subject and stays, so that nothing is learned about adding a subject.
The words of a prompt stand in the caption in the prompt's order, as edits (prompt_edits.py) have it.
"""

import re
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from components.upsampling.content_words import (
    CARRY_NOTHING,
    NUMBER_WORDS,
    OPENING_NOUNS,
    SPATIAL,
    forms_of,
    stands_in,
    subject_words,
    words_of,
)
from components.upsampling.prompt_dress import dress, with_other_words, with_unknown_word
from components.upsampling.prompt_edits import Edits, edits_of

# Shares of the prompts by what they are made of; a record that lacks one gives its share to `part`.
SHARES = {"part": 0.53, "short": 0.35, "whole": 0.07, "alt": 0.05}
KEEP_ALL, DROP_ALL = 0.1, 0.5  # shares of the texts in which all, or nothing, that may go stays
DROP_SUBJECT_ADJECTIVES = 0.15  # share of the texts that lose adjectives which the short caption has
# Share of the phrases with a subject in them that become items of their own: "on a sofa" -> "and a sofa".
UNLINK = 0.4
# Shares of the prompts with a word of content, or a small word, that no caption has.
UNKNOWN, OTHER_WORDS = 0.03, 0.15
KEEP_OPENING = 0.5  # share of the texts that keep what the long caption opens with

_NUMBER = rf"(?:\d+|{'|'.join(NUMBER_WORDS)})"
_DETERMINER = rf"(?:an?|the|some|several|many|another|his|her|their|{_NUMBER})"
_SIDE = r"(?:to the (?:left|right) of|(?:left|right) of|above|below)"
_OPENER = re.compile(
    rf"\b(?:{_SIDE} and {_SIDE}|{_SIDE}|in front of|on top of|next to|at|in|on|with|against|near|beside"
    r"|behind|under|over|between|inside|towards?|around|by|from|while|which|that|wearing|holding)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+")
_ITEM = re.compile(rf",? and (?={_DETERMINER}\b)|, (?={_DETERMINER}\b|there\b)", re.IGNORECASE)
_OPENED = (*OPENING_NOUNS, "drawing", "illustration", "painting", "sketch", "rendering", "render", "view")
_OPENING = re.compile(
    rf"^(?:(?:there (?:is|are)|(?:the|this) (?:{'|'.join(_OPENED)}) (?:shows|depicts|is of)|it shows"
    rf"|this is)\b\s*|an? (?:{'|'.join(_OPENED)}) (?:of|showing|with)\b\s*)+",
    re.IGNORECASE,
)
_INTRODUCING = {"a", "an", "some", "several", "many", *NUMBER_WORDS}
_ARTICLE = re.compile(r"\b(an?)(?= (\w))", re.IGNORECASE)


@dataclass(frozen=True)
class RecordCaptions:
    """What a record of the shards is captioned with. key: the record's, for the draws."""

    key: str
    long: str
    short: str | None = None
    alt: str | None = None


@dataclass(frozen=True)
class _Item:
    """`lead`: "there is". `head`: "a red circle". `phrases`: each with the preposition that opens it."""

    sentence: int
    lead: str
    head: str
    phrases: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(filter(None, (self.lead, self.head, *self.phrases)))


def draw_edits(record: RecordCaptions, rng: np.random.Generator) -> Edits:
    """What a user might have typed, and the edits that make the long caption of this record of it."""
    edits = edits_of(dress(_draw_text(record, rng), rng), record.long)
    if edits is None:  # the short caption has its things in another order
        short = record.short if record.short and _agrees(record.short, record.long) else None
        edits = edits_of(dress(part_of(record.long, short, rng), rng), record.long)
    if edits is None:
        edits = edits_of(record.long, record.long)
        assert edits is not None  # every word is its own
    if rng.random() < OTHER_WORDS:
        edits = with_other_words(edits, rng)
    return with_unknown_word(edits, rng) if rng.random() < UNKNOWN else edits


def _draw_text(record: RecordCaptions, rng: np.random.Generator) -> str:
    kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    short = record.short if record.short and _agrees(record.short, record.long) else None
    if kind == "whole":
        return record.long
    if kind == "short" and short is not None:
        return _without_adjectives(short, rng)
    if kind == "alt" and record.alt and _agrees(record.alt, record.long) and _agrees(short or "", record.alt):
        return record.alt
    return part_of(record.long, short, rng)


def part_of(long: str, short: str | None, rng: np.random.Generator) -> str:
    """Some of what `long` says, in its order. short: what may not be left out; None: the first sentence."""
    items = _items(long)
    said = short if short is not None else " ".join(item.head for item in items if not item.sentence)
    subject, nouns = _introduced(said), _nouns(said)
    adjectives, phrases, others = (_strength(rng) for _ in range(3))
    adjectives_of_subject = subject - nouns if rng.random() < DROP_SUBJECT_ADJECTIVES else frozenset()
    kept: list[_Item] = []
    for item in items:
        names_subject = _names(str(item), subject)
        if item.head and not _names(item.head, subject) and not names_subject and rng.random() < others:
            continue
        head = _thinned(item.head, adjectives, subject, adjectives_of_subject, rng)
        kept.append(replace(item, head=head, phrases=()))
        for whole in item.phrases:
            if not _names(whole, subject):
                if rng.random() >= phrases:
                    kept[-1] = replace(kept[-1], phrases=(*kept[-1].phrases, whole))
                continue
            phrase = _thinned(whole, adjectives, subject, adjectives_of_subject, rng)
            opener = _OPENER.match(phrase)
            if opener and phrases > 0 and rng.random() < UNLINK:
                kept.append(_Item(item.sentence, "", phrase[opener.end() :].strip(), ()))
            else:
                kept[-1] = replace(kept[-1], phrases=(*kept[-1].phrases, phrase))
    kept = [item for item in kept if item.head or item.phrases]
    opening = _OPENING.match(long)
    if opening and "there" not in opening[0].lower() and rng.random() < KEEP_OPENING:
        return f"{opening[0]}{_written(kept)}" if kept else long
    return _written(kept) or long


def _items(text: str) -> list[_Item]:
    """The items of a text in order, its opening ("a picture of") left out."""
    items = []
    for number, sentence in enumerate(_SENTENCE.split(text.strip())):
        for part in _ITEM.split(sentence.strip(" .!?;")):
            lead = _OPENING.match(part)
            words = _uncapitalised(part[lead.end() :] if lead else part)
            cuts = [match.start() for match in _OPENER.finditer(words)]
            pieces = [words[a:b].strip(" ,") for a, b in zip([0, *cuts], [*cuts, len(words)], strict=True)]
            there = lead[0].strip() if lead and lead[0].lower().startswith("there") else ""
            items.append(_Item(number, there, pieces[0], tuple(filter(None, pieces[1:]))))
    return [item for item in items if item.head or item.phrases]


def _uncapitalised(text: str) -> str:
    """Without the capital of a sentence's start, unless it may be a name's."""
    first = text.partition(" ")[0].lower()
    is_small_word = first in CARRY_NOTHING or _OPENER.match(text) is not None or first in NUMBER_WORDS
    return text[:1].lower() + text[1:] if is_small_word else text


def _introduced(text: str) -> frozenset[str]:
    """Forms of the nouns and adjectives after "a", "some" or a number, and at the text's start."""
    found: list[str] = []
    introduced = True
    for word in words_of(_OPENING.sub("", text.strip())):
        if word in _INTRODUCING:
            introduced = True
        elif word in CARRY_NOTHING or word in SPATIAL:
            introduced = False
        elif introduced:
            found.append(word)
    return forms_of(found)


def _nouns(text: str) -> frozenset[str]:
    """Forms of its words of content that no other such word follows."""
    words = words_of(text)
    pairs = pairwise([*words, ""])
    return forms_of([word for word, after in pairs if not _is_function(word) and _is_function(after)])


def _names(text: str, subject: frozenset[str]) -> bool:
    """Whether the last word of a noun phrase in it is one of the subject's."""
    return any(stands_in(word, subject) for word in words_of(text))


def _thinned(
    text: str, strength: float, subject: frozenset[str], droppable: frozenset[str], rng: np.random.Generator
) -> str:
    """Without some of its adjectives: words of content with another right behind them. Numbers stay.

    droppable: words of the subject that may go; its others stay.
    """
    words = text.split()
    opener = _OPENER.match(text)
    first = len(opener[0].split()) if opener else 0
    kept = words[:first]
    for at, word in enumerate(words[first:], first):
        is_adjective = (
            at + 1 < len(words)
            and word[-1].isalpha()
            and not any(_is_function(neighbour) for neighbour in words[at : at + 2])
            and (_names(word, droppable) or not _names(word, subject))
        )
        if not (is_adjective and rng.random() < (max(strength, 0.5) if droppable else strength)):
            kept.append(word)
    return " ".join(kept)


def _is_function(word: str) -> bool:
    (folded,) = words_of(word)[:1] or ("",)
    small = CARRY_NOTHING | SPATIAL | {*NUMBER_WORDS}
    return not folded or folded in small or folded.isdecimal()


def _without_adjectives(short: str, rng: np.random.Generator) -> str:
    """The short caption, seldom without its adjectives."""
    return part_of(short, short, rng) if rng.random() < 0.5 else short


def _written(items: list[_Item]) -> str:
    """Items as text: listed with commas and "and", sentences with full stops."""
    sentences = []
    for number in dict.fromkeys(item.sentence for item in items):
        members = [item for item in items if item.sentence == number]
        fronted = [str(item) for item in members if not item.head]
        listed = [str(item) for item in members if item.head]
        text = " and ".join(filter(None, (", ".join(listed[:-1]), *listed[-1:])))
        sentences.append(", ".join(filter(None, (*fronted, text))))
    return _ARTICLE.sub(_agreeing_article, ". ".join(sentences))


def _agreeing_article(match: re.Match[str]) -> str:
    article = "an" if match[2].lower() in "aeiou" else "a"
    return article.capitalize() if match[1][0].isupper() else article


def _agrees(text: str, whole: str) -> bool:
    """Whether what `text` speaks of, apart from its opening, stands in `whole`."""
    forms = forms_of(words_of(whole))
    return all(stands_in(word, forms) for word in subject_words(_OPENING.sub("", text.strip())))


def _strength(rng: np.random.Generator) -> float:
    """The chance at which statements of one kind are dropped from a text."""
    point = rng.random()
    return 0.0 if point < KEEP_ALL else 1.0 if point < KEEP_ALL + DROP_ALL else float(rng.random())
