"""Manners of phrasing: how different people put the same statements into words.

`write` is the one way from statements to a text. Training captions use the manners of `draw_manner`; those of
`draw_held_out_manner` never stand in the web or in the labelled set, and the prompts that are "phrased
otherwise" use them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from components.toyworld.statements import Claim, Statements

NUMBERS = ("no", "one", "two", "three", "four")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
COMPACT_FROM = 3  # claims: texts of so many use short phrases for places, so that they fit 48 tokens

# What stands before the first thing; "there" agrees with its number.
OPENINGS = ("", "", "there", "a picture of", "a drawing of", "an image of")
HELD_OUT_OPENINGS = ("show me", "draw", "please draw", "a photo of", "i would like to see")
# {cell} is one of CELLS, or several of them listed. "corner" has words of its own for each kind of cell.
PLACES = ("at {cell}", "at the {cell}", "corner")
HELD_OUT_PLACES = ("on the {cell}", "towards the {cell}", "in the {cell} part")
# {text} is all that is said of the things.
BACKGROUNDS = (
    "{text} on a {background} background",
    "{text} against a {background} background",
    "on a {background} background, {text}",
    "{text}. the background is {background}",
)
HELD_OUT_BACKGROUNDS = (
    "{text} with a {background} background",
    "{text} in front of a {background} background",
    "the background is {background}. {text}",
)


@dataclass(frozen=True)
class Manner:
    """One way of phrasing. The defaults are the plain one."""

    opening: str = ""
    place: str = PLACES[0]
    background: str = BACKGROUNDS[0]
    place_first: bool = False  # "at top left, a red circle"; of one thing alone
    sentences: bool = False  # a sentence for each claim; of two claims or fewer
    sizes: tuple[str, str] = ("small", "large")
    short_relations: bool = False  # "left of" for "to the left of"
    digits: bool = False  # "2 red circles"
    adjectives_after: bool = False  # "a circle that is large and red"
    capital: bool = False
    period: bool = False


PLAIN = Manner()


def draw_manner(rng: np.random.Generator) -> Manner:
    """A manner of the training captions. Its choices are even, so that a captioner learns each of them."""
    return Manner(
        opening=_one_of(rng, OPENINGS),
        place=_one_of(rng, PLACES),
        background=_one_of(rng, BACKGROUNDS),
        place_first=rng.random() < 0.25,
        sentences=rng.random() < 0.25,
        sizes=("small", "large") if rng.random() < 0.6 else ("little", "big"),
        short_relations=rng.random() < 0.5,
        digits=rng.random() < 0.25,
        capital=rng.random() < 0.5,
        period=rng.random() < 0.5,
    )


def draw_held_out_manner(rng: np.random.Generator) -> Manner:
    """A manner that no training caption has: another opening, other words for places and background."""
    return replace(
        draw_manner(rng),
        opening=_one_of(rng, HELD_OUT_OPENINGS),
        place=_one_of(rng, HELD_OUT_PLACES),
        background=_one_of(rng, HELD_OUT_BACKGROUNDS),
        place_first=False,
        sentences=False,
        adjectives_after=rng.random() < 0.4,
    )


def write(stated: Statements, manner: Manner = PLAIN) -> str:
    """The statements as a text in this manner, in the order of the claims."""
    compact = len(stated.claims) >= COMPACT_FROM
    if compact and manner.place == "corner":
        manner = replace(manner, place=PLACES[0])
    parts = [_claim(claim, manner) for claim in stated.claims]
    many = stated.claims[0].count > 1
    opening = manner.opening
    if opening == "there":
        opening = "there are" if many else "there is"
    if stated.relation is not None:
        text = f" {relation_words(stated.relation, manner)} ".join(parts)
    elif manner.sentences and not compact and opening.startswith("there"):
        text = ". ".join(_there_is(part, claim) for part, claim in zip(parts, stated.claims, strict=True))
        opening = ""
    elif manner.place_first and len(parts) == 1 and stated.claims[0].count == 1 and stated.claims[0].cells:
        thing = _claim(replace(stated.claims[0], cells=()), manner)
        text = f"{_place(stated.claims[0].cells, manner)}{',' * (not opening)} {opening} {thing}"
        opening, text = "", " ".join(text.split())
    else:
        text = listed(parts)
    text = f"{opening} {text}".strip()
    if stated.background is not None:
        text = manner.background.format(text=text, background=stated.background)
    text = _capitals(text) if manner.capital else text
    return f"{text}." if manner.period else text


def shuffled(stated: Statements, rng: np.random.Generator) -> Statements:
    """The same statements with the claims in a random order, the relation turned round where they change."""
    order = rng.permutation(len(stated.claims)).tolist()
    relation = stated.relation
    if relation is not None and order == [1, 0]:
        relation = " ".join(OPPOSITE[word] for word in relation.split())
    return replace(stated, claims=tuple(stated.claims[i] for i in order), relation=relation)


def relation_words(relation: str, manner: Manner = PLAIN) -> str:
    """left -> "to the left of"; "above left" -> "above and to the left of"."""
    words = {
        name: f"{name} of" if manner.short_relations else f"to the {name} of" for name in ("left", "right")
    }
    return " and ".join(words.get(word, word) for word in relation.split())


def phrase(
    colour: str | None, shape: str | None, count: int = 1, size: str | None = None, *, digits: bool = False
) -> str:
    """A noun phrase: "a large red circle", "an orange star", "three circles", "a red shape"."""
    words = [*filter(None, (size, colour)), shape or "shape"]
    if count > 1:
        return " ".join([str(count) if digits else NUMBERS[count], *words[:-1], plural(words[-1])])
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def listed(parts: Sequence[str]) -> str:
    """One, two and three."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _claim(claim: Claim, manner: Manner) -> str:
    size = None if claim.size is None else manner.sizes[claim.size == "large"]
    if manner.adjectives_after and (size or claim.colour):
        noun = phrase(None, claim.shape, claim.count, digits=manner.digits)
        verb = "are" if claim.count > 1 else "is"
        text = f"{noun} that {verb} {' and '.join(filter(None, (size, claim.colour)))}"
    else:
        text = phrase(claim.colour, claim.shape, claim.count, size, digits=manner.digits)
    return f"{text} {_place(claim.cells, manner)}" if claim.cells else text


def _place(cells: Sequence[str], manner: Manner) -> str:
    """Where, in words: "at top left", "in the top left corner", "at top, left and bottom right"."""
    if manner.place != "corner":
        return manner.place.format(cell=listed(cells))
    if len(cells) > 1:
        return f"at the {listed(cells)}"
    if " " in cells[0]:
        return f"in the {cells[0]} corner"
    if cells[0] == "centre":
        return "in the middle"
    return f"on the {cells[0]} side" if cells[0] in ("left", "right") else f"near the {cells[0]}"


def _there_is(part: str, claim: Claim) -> str:
    return f"there {'are' if claim.count > 1 else 'is'} {part}"


def _capitals(text: str) -> str:
    """Each sentence with a capital."""
    return ". ".join(sentence[0].upper() + sentence[1:] for sentence in text.split(". "))


def _one_of(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
