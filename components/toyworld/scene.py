"""The toy world's scenes: one to four coloured shapes on a plain background.

Everything a caption may say about a scene is visible in it: `draw_scene` keeps clear of every threshold
(small or large, which cell, left or above) by a margin that survives 32 pixels.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from components.errors import InputError
from components.randomness import derive_seed

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross")

# Far apart from each other and from every background, also after JPEG's chroma subsampling.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 20, 35),
    "orange": (255, 140, 0),
    "yellow": (255, 235, 20),
    "green": (20, 165, 45),
    "cyan": (20, 220, 235),
    "blue": (30, 60, 235),
    "purple": (135, 25, 180),
    "pink": (255, 130, 200),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (10, 10, 10),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "brown": (100, 58, 20),
}

KINDS: dict[str, float] = {"single": 0.25, "pair": 0.40, "group": 0.20, "mixed": 0.15}
RELATIONS: tuple[str, ...] = ("left", "right", "above", "below")

# Fractions of the side. A thing is small below SMALL_BELOW, else large; both sizes in use keep .05 away.
# A centre is in the left (top) cells below CELL_EDGES[0], in the right (bottom) ones from CELL_EDGES[1].
SMALL_BELOW = 0.355
CELL_EDGES = (0.41, 0.59)
SMALL, LARGE = 0.3, 0.44
LATTICE = 4  # centres lie on quarters of the side: a small model learns places, not sub-pixel offsets
BORDER = 0.02  # nothing touches the edge of the image
GAP = 0.06  # between the boxes of two things: two pixels at 32
# A pair stands beside or above when the lesser offset is below this part of the greater one, else diagonally.
DIAGONAL_FROM = 0.5


@dataclass(frozen=True)
class Thing:
    """One shape. `x`, `y` are the centre and `size` the side of its box, as fractions of the image's side."""

    shape: str
    colour: str
    x: float
    y: float
    size: float

    def to_dict(self) -> dict[str, Any]:
        return {"shape": self.shape, "colour": self.colour, "x": self.x, "y": self.y, "size": self.size}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Thing":
        return cls(**data)


@dataclass(frozen=True)
class Scene:
    """A background and one to four things that do not touch, in reading order of their making."""

    background: str
    things: tuple[Thing, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"background": self.background, "things": [thing.to_dict() for thing in self.things]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Scene":
        return cls(data["background"], tuple(Thing.from_dict(thing) for thing in data["things"]))


def draw_scene(rng: np.random.Generator, kind: str | None = None) -> Scene:
    """A scene of this kind (a key of KINDS), or of a random one by KINDS; it never has a held-out pair."""
    if kind is None:
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    things: tuple[Thing, ...]
    if kind == "single":
        things = place_single(rng, *_draw_looks(rng, 1)[0])
    elif kind == "pair":
        relation = str(rng.choice([*RELATIONS, "diagonal", "diagonal"]))
        things = place_pair(rng, _draw_looks(rng, 2), relation)
    elif kind == "group":
        things = place_in_quarters(rng, _draw_looks(rng, 1) * int(rng.integers(2, 5)))
    elif kind == "mixed":
        things = place_in_quarters(rng, _draw_looks(rng, int(rng.integers(3, 5))))
    else:
        raise InputError(f"scene kind '{kind}' is unknown; use one of {', '.join(KINDS)}")
    return Scene(str(rng.choice(list(BACKGROUNDS))), things)


def is_held_out(a: tuple[str, str], b: tuple[str, str]) -> bool:
    """Whether (colour, shape) `a` and `b` are kept for the prompts: a fixed, symmetric tenth of all pairs."""
    return _held_out(*sorted((a, b)))


def place_single(rng: np.random.Generator, colour: str, shape: str) -> tuple[Thing]:
    """One thing, small or large, well inside one of the nine cells."""
    size = (SMALL, LARGE)[int(rng.integers(2))]
    x, y = rng.choice((0.25, 0.5, 0.75), size=2).tolist()
    return (Thing(shape, colour, x, y, size),)


def place_pair(rng: np.random.Generator, looks: list[tuple[str, str]], relation: str) -> tuple[Thing, Thing]:
    """Two (colour, shape): the first stands in `relation` to the second, or at any diagonal of it."""
    sizes = _pair_sizes(rng)
    places = _pair_places(*sizes, relation)
    ax, ay, bx, by = places[int(rng.integers(len(places)))]
    return Thing(looks[0][1], looks[0][0], ax, ay, sizes[0]), Thing(
        looks[1][1], looks[1][0], bx, by, sizes[1]
    )


def place_in_quarters(rng: np.random.Generator, looks: list[tuple[str, str]]) -> tuple[Thing, ...]:
    """Two to four (colour, shape), each in its quarter, in reading order; all small."""
    quarters = sorted(rng.permutation(4)[: len(looks)].tolist())
    return tuple(
        Thing(shape, colour, 0.25 + 0.5 * (quarter % 2), 0.25 + 0.5 * (quarter // 2), SMALL)
        for quarter, (colour, shape) in zip(quarters, looks, strict=True)
    )


def direction(dx: float, dy: float) -> str:
    """Where something stands that has the other at offset (dx, dy) from it; y grows downwards."""
    if abs(dx) >= abs(dy):
        return "left" if dx > 0 else "right"
    return "above" if dy > 0 else "below"


@cache
def outline(shape: str) -> tuple[tuple[float, float], ...]:
    """The shape's corners in a box of side 1 around the origin; y grows downwards."""
    if shape == "circle":
        turns = [2 * math.pi * i / 48 for i in range(48)]
        return tuple((0.49 * math.cos(turn), 0.49 * math.sin(turn)) for turn in turns)
    if shape == "square":
        return ((-0.44, -0.44), (0.44, -0.44), (0.44, 0.44), (-0.44, 0.44))
    if shape == "triangle":
        return ((0.0, -0.48), (0.53, 0.44), (-0.53, 0.44))
    if shape == "star":
        # Points of 0.55, notches of 0.24: a little fatter than a regular star, so that it survives 8 pixels.
        turns = [math.pi * i / 5 for i in range(10)]
        reach = [0.55 if i % 2 == 0 else 0.24 for i in range(10)]
        return tuple((r * math.sin(t), 0.05 - r * math.cos(t)) for r, t in zip(reach, turns, strict=True))
    if shape == "cross":
        a, b = 0.17, 0.5
        return (
            (-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a),
            (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a),
        )  # fmt: skip
    raise InputError(f"shape '{shape}' is unknown; use one of {', '.join(SHAPES)}")


def _draw_looks(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """`count` (colour, shape): no two of one colour; two differ in shape, more have at least two shapes."""
    while True:
        colours = rng.permutation(list(COLOURS))[:count].tolist()
        shapes = rng.choice(SHAPES, size=count).tolist()
        looks = list(zip(colours, shapes, strict=True))
        if count > 1 and len(set(shapes)) == 1:
            continue
        if not any(is_held_out(a, b) for i, a in enumerate(looks) for b in looks[:i]):
            return looks


def _pair_sizes(rng: np.random.Generator) -> tuple[float, float]:
    """Usually one large and one small, else two of a kind."""
    return ((LARGE, SMALL), (SMALL, LARGE), (SMALL, SMALL), (LARGE, LARGE))[
        int(rng.choice(4, p=(0.35, 0.35, 0.15, 0.15)))
    ]


@cache
def _pair_places(a: float, b: float, relation: str) -> tuple[tuple[float, float, float, float], ...]:
    """All (ax, ay, bx, by) on the lattice where things of sizes a and b stand clearly in the relation."""
    places = []
    for ax, ay, bx, by in product(_room(a), _room(a), _room(b), _room(b)):
        dx, dy = bx - ax, by - ay  # from the first to the second
        lesser, greater = sorted((abs(dx), abs(dy)))
        if greater < (a + b) / 2 + GAP:
            continue
        if relation == "diagonal":
            fits = lesser > (DIAGONAL_FROM + 0.15) * greater
        else:
            fits = lesser < (DIAGONAL_FROM - 0.15) * greater and direction(dx, dy) == relation
        if fits:
            places.append((ax, ay, bx, by))
    return tuple(places)


def _room(size: float) -> list[float]:
    """The places of the lattice where a thing of that size stays inside the image."""
    places = (step / LATTICE for step in range(LATTICE + 1))
    return [place for place in places if BORDER + size / 2 <= place <= 1 - BORDER - size / 2]


@cache
def _held_out(a: tuple[str, str], b: tuple[str, str]) -> bool:
    return derive_seed(0, "held-out pair", *a, *b) % 10 == 0
