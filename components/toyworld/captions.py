"""Captions of a scene: canonical short and long ones, and whether a given caption is true of it.

The grammar is small and closed, so that a caption of any origin can be parsed and compared with the scene:
`a red circle`, `three red circles`, `a red circle to the left of a blue square`, `a red circle, a blue square
and a green star`; the long ones add sizes, places and the background.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from components.toyworld.scene import (
    BACKGROUNDS,
    CELL_EDGES,
    COLOURS,
    DIAGONAL_FROM,
    SHAPES,
    SMALL_BELOW,
    Scene,
    Thing,
    direction,
)

NUMBERS = ("no", "one", "two", "three", "four")
RELATION_WORDS = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
    "above left": "above and to the left of",
    "above right": "above and to the right of",
    "below left": "below and to the left of",
    "below right": "below and to the right of",
}
CELLS = (
    "top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """Exactly `count` things of this look, at these cells (none named: anywhere)."""

    count: int
    size: str | None
    colour: str | None
    shape: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Statements:
    """A caption, parsed. `relation` is that of the first claim's thing to the second's."""

    claims: tuple[Claim, ...]
    relation: str | None
    background: str | None


def caption_short(scene: Scene) -> str:
    """The things and, where one axis clearly dominates, the relation of a pair."""
    return _caption(scene, long=False)


def caption_long(scene: Scene) -> str:
    """Everything: things, sizes where they vary, places, relation and background; at most 29 words."""
    return f"{_caption(scene, long=True)} on a {scene.background} background"


def statements(caption: str) -> Statements | None:
    """The caption's statements, or None if it is not of the grammar."""
    text = " ".join(caption.strip().rstrip(".").lower().split())
    background = None
    if match := _BACKGROUND.fullmatch(text):
        text, background = match.groups()
    relation = None
    parts = _CLAIM_BORDER.split(text)
    if len(parts) == 1 and (match := _RELATION.fullmatch(text)):
        first, words, second = match.groups()
        relation, parts = _RELATION_OF_WORDS[words], [first, second]
    claims = [claim for part in parts if (claim := _claim(part))]
    return Statements(tuple(claims), relation, background) if len(claims) == len(parts) else None


def is_true(caption: str, scene: Scene) -> bool:
    """Whether every statement of the caption holds in the scene; a caption that does not parse is false."""
    stated = statements(caption)
    if stated is None or stated.background not in (None, scene.background):
        return False
    matches = [[thing for thing in scene.things if _fits(thing, claim)] for claim in stated.claims]
    for claim, things in zip(stated.claims, matches, strict=True):
        if len(things) != claim.count or (claim.cells and sorted(map(cell, things)) != sorted(claim.cells)):
            return False
    if len({(claim.colour, claim.shape, claim.size) for claim in stated.claims}) != len(stated.claims):
        return False  # the same thing named twice
    if stated.relation is None:
        return True
    return len(matches[0]) == len(matches[1]) == 1 and holds(stated.relation, matches[0][0], matches[1][0])


def is_complete(caption: str, scene: Scene) -> bool:
    """Whether the caption names as many things as the scene has."""
    stated = statements(caption)
    return stated is not None and sum(claim.count for claim in stated.claims) == len(scene.things)


def size_word(thing: Thing) -> str:
    return "small" if thing.size < SMALL_BELOW else "large"


def cell(thing: Thing) -> str:
    """Which of the nine cells the thing's centre is in."""
    column, row = (sum(value >= edge for edge in CELL_EDGES) for value in (thing.x, thing.y))
    return CELLS[3 * row + column]


def relation_of(a: Thing, b: Thing) -> str:
    """How `a` stands to `b`: along one axis, or both where neither dominates ("above left")."""
    dx, dy = b.x - a.x, b.y - a.y
    lesser, greater = sorted((abs(dx), abs(dy)))
    if lesser < DIAGONAL_FROM * greater:
        return direction(dx, dy)
    return f"{direction(0, dy)} {direction(dx, 0)}"


def holds(relation: str, a: Thing, b: Thing) -> bool:
    """Whether `a` stands in the relation to `b`; a diagonal pair holds both its words, as GenEval counts."""
    return set(relation.split()) <= set(relation_of(a, b).split())


def phrase(colour: str | None, shape: str, count: int = 1, size: str | None = None) -> str:
    """A noun phrase: "a large red circle", "an orange star", "three circles"."""
    words = [*filter(None, (size, colour)), shape]
    if count > 1:
        return " ".join([NUMBERS[count], *words[:-1], plural(shape)])
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def listed(parts: Sequence[str]) -> str:
    """One, two and three."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def in_caption_order(scene: Scene) -> tuple[Thing, ...]:
    """The order in which a caption names things: of a pair the large one first, else the left or upper."""
    if len(scene.things) != 2:
        return tuple(sorted(scene.things, key=lambda thing: (thing.y >= 0.5, thing.x)))
    a, b = scene.things
    if size_word(a) != size_word(b):
        return (a, b) if size_word(a) == "large" else (b, a)
    return (a, b) if direction(b.x - a.x, b.y - a.y) in ("left", "above") else (b, a)


def _caption(scene: Scene, *, long: bool) -> str:
    things = in_caption_order(scene)
    first = things[0]
    if len(things) == 1:
        place = f" at {cell(first)}" if long else ""
        return phrase(first.colour, first.shape, size=size_word(first) if long else None) + place
    if len({(thing.shape, thing.colour) for thing in things}) == 1:
        # Things of a group are always small, and four fill every corner: neither is worth a word.
        place = f" at {listed([cell(thing) for thing in things])}" if long and len(things) < 4 else ""
        return phrase(first.colour, first.shape, count=len(things)) + place
    if len(things) == 2:
        relation = relation_of(*things)
        if long:
            names = [f"{phrase(t.colour, t.shape, size=size_word(t))} at {cell(t)}" for t in things]
        else:
            names = [phrase(t.colour, t.shape) for t in things]
            if " " in relation:
                return listed(names)
        return f" {RELATION_WORDS[relation]} ".join(names)
    return listed([phrase(t.colour, t.shape) + (f" at {cell(t)}" if long else "") for t in things])


def _fits(thing: Thing, claim: Claim) -> bool:
    return (
        thing.shape == claim.shape
        and claim.colour in (None, thing.colour)
        and claim.size in (None, size_word(thing))
    )


def _any(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_RELATION_OF_WORDS = {words: relation for relation, words in RELATION_WORDS.items()}
# The first part is as short as can be, so that "above and to the left of" is not read as "to the left of".
_RELATION = re.compile(f"(.*?) ({_any(RELATION_WORDS.values())}) (.*)")
_BACKGROUND = re.compile(f"(.*) on an? ({_any(BACKGROUNDS)}) background")
# "and" and "," part claims, but also the cells of one claim: a claim begins with a number or an article.
_CLAIM_BORDER = re.compile(f"(?:,| and|, and) (?=(?:an?|{_any(NUMBERS)}) )")
_CELL = f"(?:{_any(CELLS)})"
_CLAIM = re.compile(
    f"(an?|{_any(NUMBERS)})(?: (small|large))?(?: ({_any(COLOURS)}))?"
    f" ({_any([*SHAPES, *map(plural, SHAPES)])})(?: at ({_CELL}(?:(?:, | and ){_CELL})*))?"
)
_SINGULAR = {plural(shape): shape for shape in SHAPES}


def _claim(text: str) -> Claim | None:
    match = _CLAIM.fullmatch(text)
    if match is None:
        return None
    number, size, colour, shape, cells = match.groups()
    count = 1 if number in ("a", "an") else NUMBERS.index(number)
    if (count != 1) != (shape in _SINGULAR):
        return None
    places = tuple(re.split(", | and ", cells)) if cells else ()
    return Claim(count, size, colour, _SINGULAR.get(shape, shape), places)
