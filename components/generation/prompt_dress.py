"""The dress of a prompt: its opening, its capitals, its full stop, what else people type around it.

None of it says anything about the image, and the upsampler learns to pass over it. An opening that an evaluation keeps apart (the toy world's
HELD_OUT_OPENINGS) is not among them.
"""

import re
from dataclasses import replace

import numpy as np

from components.generation.prompt_edits import Edits, may_drop

OPENINGS = (
    "a picture of", "an image of", "a drawing of", "an illustration of", "a painting of", "a sketch of",
    "a rendering of", "picture of", "image of", "drawing of", "picture:", "the picture shows", "it shows",
    "this is", "there is", "there are", "make", "make me", "create", "create an image of", "generate",
    "generate a picture of", "give me", "give me a picture of", "i want", "i want a picture of", "paint",
    "please make", "please paint", "can you make", "could you paint", "we need", "an artwork with",
    "a scene with", "a view of", "just", "simply", "depict", "imagine",
)  # fmt: skip
ENDINGS = ("please", "thanks", "thank you", "if you can")
PLAIN, ENDING = 0.45, 0.04  # shares of the texts without any opening; with an ending
LOWER, CAPITAL, UPPER, TITLE = 0.4, 0.3, 0.03, 0.03  # the others keep their capitals
PERIOD = 0.35
CONSONANTS, VOWELS = "bcdfghklmnprstvwz", "aeiou"

_NAMES_A_THING = re.compile(r"(?:an?|the|some|one|two|three|four|\d+)\b", re.I)  # and not "on a sofa, a dog"
_OPENING = re.compile(
    rf"^(?:(?:{'|'.join(map(re.escape, sorted(OPENINGS, key=len, reverse=True)))})\s+)+", re.I
)


def dress(text: str, rng: np.random.Generator) -> str:
    """The text with another opening or none, other capitals, with or without a full stop."""
    text = " ".join(text.split()).strip(" .!")
    text = _OPENING.sub("", text)
    if rng.random() > PLAIN and _NAMES_A_THING.match(text):
        text = f"{OPENINGS[int(rng.integers(len(OPENINGS)))]} {text}"
    if rng.random() < ENDING:
        text = f"{text}{',' * int(rng.integers(2))} {ENDINGS[int(rng.integers(len(ENDINGS)))]}"
    return _capitals(text, rng) + "." * (rng.random() < PERIOD)


def with_unknown_word(edits: Edits, rng: np.random.Generator) -> Edits:
    """One kept word of content in place of which a made-up one is kept: learned is to keep what is not known."""
    kept = [
        at
        for at, (unit, edit) in enumerate(zip(edits.units, edits.edits, strict=True))
        if edit.keep and not may_drop(unit)
    ]
    if not kept:
        return edits
    at = kept[int(rng.integers(len(kept)))]
    return replace(edits, units=(*edits.units[:at], _made_up_word(rng), *edits.units[at + 1 :]))


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
    letters = [(CONSONANTS, VOWELS)[at % 2] for at in range(int(rng.integers(2, 8)))]
    return "".join(choices[int(rng.integers(len(choices)))] for choices in letters)
