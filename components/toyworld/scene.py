"""The toy world's scenes: one to four coloured shapes on a plain background, and how they are drawn.

Places, sizes, turns, colours and edges vary continuously; what a caption may say about a scene (small or
large, which cell, left or above) keeps clear of its threshold by a margin that survives 32 pixels.
layout.py places things, held_out.py says what no scene of the web shows.
"""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross")

Rgb = tuple[int, int, int]

# The means, far apart from each other and from every background, also after JPEG's chroma subsampling.
COLOURS: dict[str, Rgb] = {
    "red": (225, 20, 35),
    "orange": (255, 140, 0),
    "yellow": (255, 235, 20),
    "green": (20, 165, 45),
    "cyan": (20, 220, 235),
    "blue": (30, 60, 235),
    "purple": (135, 25, 180),
    "pink": (255, 130, 200),
}
BACKGROUNDS: dict[str, Rgb] = {
    "black": (10, 10, 10),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "brown": (100, 58, 20),
}
COLOUR_SPREAD = 14  # levels: the most that a channel differs from the mean of its colour's name
MAX_TURN = 12.0  # degrees, either way
MAX_SOFTNESS = 0.012  # of the side: the standard deviation of the blur at an edge

# Fractions of the side. A thing is small below SMALL_BELOW, else large.
# A centre is in the left (top) cells below CELL_EDGES[0], in the right (bottom) ones from CELL_EDGES[1].
SMALL_BELOW = 0.365
SIZES: dict[str, tuple[float, float]] = {"small": (0.26, 0.33), "large": (0.40, 0.52)}
CELL_EDGES = (0.41, 0.59)
CELLS = (
    "top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip
RELATIONS: tuple[str, ...] = ("left", "right", "above", "below")
# A pair stands beside or above when the lesser offset is below this part of the greater one, else diagonally.
DIAGONAL_FROM = 0.5


class Visible(Protocol):
    """What a caption speaks of: a thing of a scene, or one that the scorer detected in an image."""

    @property
    def shape(self) -> str | None: ...
    @property
    def colour(self) -> str: ...
    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...
    @property
    def size(self) -> float: ...


@dataclass(frozen=True)
class Thing:
    """One shape. `x`, `y` are the centre and `size` the side of its box, as fractions of the image's side.

    turn: degrees clockwise. rgb: the colour that it really has; None for the mean of its name.
    """

    shape: str
    colour: str
    x: float
    y: float
    size: float
    turn: float = 0.0
    rgb: Rgb | None = None

    @property
    def paint(self) -> Rgb:
        return self.rgb or COLOURS[self.colour]


@dataclass(frozen=True)
class Scene:
    """A background and one to four things that do not touch.

    background_rgb: the colour that it really has; None for the mean of its name. softness: the standard
    deviation of the blur at edges, as a fraction of the side.
    """

    background: str
    things: tuple[Thing, ...]
    background_rgb: Rgb | None = None
    softness: float = 0.0

    @property
    def paint(self) -> Rgb:
        return self.background_rgb or BACKGROUNDS[self.background]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Scene":
        """Read what `to_dict` gave, also after a way through JSON."""
        things = tuple(Thing(**{**thing, "rgb": _rgb(thing["rgb"])}) for thing in data["things"])
        return cls(data["background"], things, _rgb(data["background_rgb"]), data["softness"])


def size_word(thing: Visible) -> str:
    return "small" if thing.size < SMALL_BELOW else "large"


def cell(thing: Visible) -> str:
    """Which of the nine cells the thing's centre is in."""
    column, row = (sum(value >= edge for edge in CELL_EDGES) for value in (thing.x, thing.y))
    return CELLS[3 * row + column]


def relation_of(a: Visible, b: Visible) -> str:
    """How `a` stands to `b`: along one axis, or both where neither dominates ("above left")."""
    dx, dy = b.x - a.x, b.y - a.y
    lesser, greater = sorted((abs(dx), abs(dy)))
    if lesser < DIAGONAL_FROM * greater:
        return direction(dx, dy)
    return f"{direction(0, dy)} {direction(dx, 0)}"


def direction(dx: float, dy: float) -> str:
    """Where something stands that has the other at offset (dx, dy) from it; y grows downwards."""
    if abs(dx) >= abs(dy):
        return "left" if dx > 0 else "right"
    return "above" if dy > 0 else "below"


def _rgb(values: Any) -> Rgb | None:
    return None if values is None else (values[0], values[1], values[2])
