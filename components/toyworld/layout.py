"""Draws scenes: which things, how they look, and where they stand without touching.

`draw_scene` is the web's world. `draw_scene_of` places given things, for the prompts: anything that a
request leaves open is drawn as the web draws it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.errors import InputError
from components.toyworld.held_out import Look, is_held_out, looks_are_held_out
from components.toyworld.outlines import turned_outline
from components.toyworld.scene import (
    BACKGROUNDS,
    CELL_EDGES,
    CELLS,
    COLOUR_SPREAD,
    COLOURS,
    DIAGONAL_FROM,
    MAX_SOFTNESS,
    MAX_TURN,
    SHAPES,
    SIZES,
    Rgb,
    Scene,
    Thing,
    relation_of,
)

Floats = npt.NDArray[np.float64]

KINDS: dict[str, float] = {"single": 0.22, "pair": 0.36, "group": 0.18, "mixed": 0.24}
LARGE_SHARE = {1: 0.5, 2: 0.4, 3: 0.2, 4: 0.08}  # of the things, by how many there are
DIFFERENT_LOOKS = 0.6  # of the mixed scenes; the others have two things or more of one look

# Fractions of the side.
BORDER = 0.02  # nothing touches the edge of the image
GAP = 0.06  # between the boxes of two things: two pixels at 32
CELL_MARGIN = 0.025  # centres keep so far from the edges of the cells
RELATION_MARGIN = 0.1  # and the lesser offset of a pair, as a part of the greater, from DIAGONAL_FROM

PLACINGS = 128  # that are tried at once
MOST_TRIES = 400  # of that many placings, each with other sizes


@dataclass(frozen=True)
class Wanted:
    """A thing to place; None is open."""

    look: Look
    size: str | None = None
    cell: str | None = None


def draw_scene(rng: np.random.Generator, kind: str | None = None) -> Scene:
    """A scene of this kind (a key of KINDS), or of a random one by KINDS; nothing held out is in it."""
    # The kind is drawn once: the larger a scene, the more often something held out is in it.
    chosen = kind or str(rng.choice(list(KINDS), p=list(KINDS.values())))
    while True:
        looks = draw_looks(rng, chosen)
        if looks_are_held_out(looks):
            continue
        scene = draw_scene_of(rng, [Wanted(look) for look in looks])
        if not is_held_out(scene):
            return scene


def draw_looks(rng: np.random.Generator, kind: str) -> list[Look]:
    """The looks of a scene of this kind; held-out ones among them."""
    match kind:
        case "single":
            return [draw_look(rng)]
        case "pair":
            return _different(rng, 2)
        case "group":
            return [draw_look(rng)] * int(rng.integers(2, 5))
        case "mixed":
            count = int(rng.integers(3, 5))
            if rng.random() < DIFFERENT_LOOKS:
                return _different(rng, count)
            first, second = _different(rng, 2)
            repeated = int(rng.integers(1, count))
            return [first] * repeated + [second] * (count - repeated)
    raise InputError(f"scene kind '{kind}' is unknown; use one of {', '.join(KINDS)}")


def draw_look(rng: np.random.Generator) -> Look:
    return str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))


def draw_scene_of(
    rng: np.random.Generator,
    wanted: Sequence[Wanted],
    *,
    relation: str | None = None,
    background: str | None = None,
) -> Scene:
    """A scene of these things, in this order. relation: of the first to the second, one or two words.

    Raises InputError where no placing of them was found.
    """
    for _ in range(MOST_TRIES):
        turns = rng.uniform(-MAX_TURN, MAX_TURN, size=len(wanted))
        sizes = [_size(rng, thing.size, len(wanted)) for thing in wanted]
        things = [
            Thing(thing.look[1], thing.look[0], 0.5, 0.5, size, float(turn))
            for thing, size, turn in zip(wanted, sizes, turns, strict=True)
        ]
        centres = _place(rng, things, [thing.cell for thing in wanted], relation)
        if centres is None:
            continue
        placed = tuple(
            Thing(
                t.shape,
                t.colour,
                _short(x),
                _short(y),
                _short(t.size),
                _short(t.turn),
                _varied(rng, COLOURS[t.colour]),
            )
            for t, (x, y) in zip(things, centres.tolist(), strict=True)
        )
        name = background or str(rng.choice(list(BACKGROUNDS)))
        paint = _varied(rng, BACKGROUNDS[name])
        return Scene(name, placed, paint, _short(rng.uniform(0, MAX_SOFTNESS)))
    raise InputError(f"no scene was found with {list(wanted)}, relation {relation}")


def _size(rng: np.random.Generator, word: str | None, count: int) -> float:
    if word is None:
        word = "large" if rng.random() < LARGE_SHARE[count] else "small"
    return float(rng.uniform(*SIZES[word]))


def _place(
    rng: np.random.Generator, things: Sequence[Thing], cells: Sequence[str | None], relation: str | None
) -> Floats | None:
    """Centres (N, 2) that keep every margin, or None where none of PLACINGS does."""
    boxes = np.array([_box(thing) for thing in things])  # (N, 2, 2): low and high (x, y) from the centre
    low, high = BORDER - boxes[:, 0], 1 - BORDER - boxes[:, 1]
    for i, name in enumerate(cells):
        if name is not None:
            cell_low, cell_high = _cell_room(name)
            low[i], high[i] = np.maximum(low[i], cell_low), np.minimum(high[i], cell_high)
    if (low >= high).any():
        return None
    centres = rng.uniform(low, high, size=(PLACINGS, len(things), 2))
    good = (np.abs(centres[..., None] - CELL_EDGES) > CELL_MARGIN).all((1, 2, 3))
    for i in range(len(things)):
        for j in range(i):
            good &= _apart(centres[:, i], centres[:, j], boxes[i], boxes[j])
    if len(things) == 2:
        good &= _clear_relation(centres, relation)
    found = np.flatnonzero(good)
    return centres[found[0]] if len(found) else None


def _box(thing: Thing) -> Floats:
    corners = turned_outline(thing.shape, thing.turn) * thing.size
    return np.array([corners.min(0), corners.max(0)])


def _cell_room(name: str) -> tuple[Floats, Floats]:
    """The lowest and the highest centre (x, y) in a cell, margins kept."""
    edges = [0.0, *CELL_EDGES, 1.0]
    row, column = divmod(CELLS.index(name), 3)
    low = np.array([edges[column], edges[row]]) + CELL_MARGIN
    high = np.array([edges[column + 1], edges[row + 1]]) - CELL_MARGIN
    return low, high


def _apart(a: Floats, b: Floats, box_a: Floats, box_b: Floats) -> npt.NDArray[np.bool_]:
    """Whether boxes around the centres a and b (P, 2) keep GAP along one axis."""
    gaps = np.maximum((b + box_b[0]) - (a + box_a[1]), (a + box_a[0]) - (b + box_b[1]))
    return np.asarray((gaps >= GAP).any(1))


def _clear_relation(centres: Floats, relation: str | None) -> npt.NDArray[np.bool_]:
    """Which pairs (P, 2, 2) stand clearly beside, above or diagonally; where given, in this relation."""
    offsets = centres[:, 1] - centres[:, 0]
    lesser, greater = np.sort(np.abs(offsets), axis=1).T
    clear = np.abs(lesser - DIAGONAL_FROM * greater) > RELATION_MARGIN * greater
    if relation is None:
        return np.asarray(clear)
    fits = [
        ok and relation_of(_at(a), _at(b)) == relation
        for ok, (a, b) in zip(clear.tolist(), centres.tolist(), strict=True)
    ]
    return np.array(fits)


def _at(centre: Sequence[float]) -> Thing:
    return Thing("circle", "red", centre[0], centre[1], SIZES["small"][0])


def _different(rng: np.random.Generator, count: int) -> list[Look]:
    while True:
        looks = [draw_look(rng) for _ in range(count)]
        if max(Counter(looks).values()) == 1:
            return looks


def _varied(rng: np.random.Generator, mean: Rgb) -> Rgb:
    levels = np.clip(np.array(mean) + rng.integers(-COLOUR_SPREAD, COLOUR_SPREAD + 1, size=3), 0, 255)
    return int(levels[0]), int(levels[1]), int(levels[2])


def _short(value: float) -> float:
    """Digits enough for a thousandth of a pixel; short in JSON."""
    return round(float(value), 5)
