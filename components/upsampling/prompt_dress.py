"""The dress of a prompt: its opening, its capitals, its full stop, what else people type around it.

None of it says anything about the image, and the upsampler learns to pass over it. Openings such as "show me
a picture of" it never sees (prompt_cleaning.py).
"""

import re
from dataclasses import replace

import numpy as np

from components.upsampling.content_words import CARRY_NOTHING
from components.upsampling.edit_tokens import OTHER
from components.upsampling.prompt_edits import Edit, Edits, may_drop

OPENINGS = ("there is", "there are", "this is", "here is", "just", "simply", "please")
ENDINGS = ("please", "thanks", "thank you", "if you can")
PLAIN, ENDING = 0.8, 0.04  # shares of the texts without an opening of these; with an ending
LOWER, CAPITAL, UPPER, TITLE = 0.4, 0.3, 0.03, 0.03  # the others keep their capitals
PERIOD = 0.35
CONSONANTS, VOWELS = "bcdfghklmnprstvwz", "aeiou"

_NAMES_A_THING = re.compile(r"(?:an?|the|some|one|two|three|four|\d+)\b", re.I)  # and not "on a sofa, a dog"


def dress(text: str, rng: np.random.Generator) -> str:
    """The text with another opening or none, other capitals, with or without a full stop."""
    text = " ".join(text.split()).strip(" .!")
    if rng.random() > PLAIN and _NAMES_A_THING.match(text):
        text = f"{OPENINGS[int(rng.integers(len(OPENINGS)))]} {text}"
    if rng.random() < ENDING:
        text = f"{text}{',' * int(rng.integers(2))} {ENDINGS[int(rng.integers(len(ENDINGS)))]}"
    return _capitals(text, rng) + "." * (rng.random() < PERIOD)


def with_unknown_word(edits: Edits, rng: np.random.Generator) -> Edits:
    """A made-up word is kept in place of one of content: what is learned is to keep the unknown."""
    kept = [
        at
        for at, (unit, edit) in enumerate(zip(edits.units, edits.edits, strict=True))
        if edit.keep and not may_drop(unit)
    ]
    if not kept:
        return edits
    at = kept[int(rng.integers(len(kept)))]
    return replace(edits, units=(*edits.units[:at], _made_up_word(rng), *edits.units[at + 1 :]))


def with_other_words(edits: Edits, rng: np.random.Generator) -> Edits:
    """A small word as one that no caption has, its usual one in its place; or one more of them, dropped."""
    small = [at for at, unit in enumerate(edits.units) if unit.lower() in CARRY_NOTHING]
    if small and rng.random() < 0.7:
        at = small[int(rng.integers(len(small)))]
        was = edits.edits[at]
        edit = Edit((*was.insert, edits.units[at].lower()) if was.keep else was.insert, keep=False)
        after = at + 1
    else:
        at = after = int(rng.integers(len(edits.units) + 1))
        edit = Edit((), keep=False)
    return replace(
        edits,
        units=(*edits.units[:at], OTHER, *edits.units[after:]),
        edits=(*edits.edits[:at], edit, *edits.edits[after:]),
    )


def _capitals(text: str, rng: np.random.Generator) -> str:
    point = rng.random()
    for share, change in (
        (LOWER, str.lower),
        (CAPITAL, _sentence_case),
        (UPPER, str.upper),
        (TITLE, str.title),
    ):
        if point < share:
            return change(text)
        point -= share
    return text


def _sentence_case(text: str) -> str:
    """A capital after each full stop, and at the start."""
    return re.sub(r"(^|[.!?] )(\w)", lambda match: match[1] + match[2].upper(), text)


def _made_up_word(rng: np.random.Generator) -> str:
    """Of consonants and vowels in turn; none that is a small word."""
    while True:
        letters = [(CONSONANTS, VOWELS)[at % 2] for at in range(int(rng.integers(3, 8)))]
        word = "".join(choices[int(rng.integers(len(choices)))] for choices in letters)
        if not may_drop(word):
            return word
