"""The outlines of the shapes, as corners of polygons."""

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from components.errors import InputError
from components.toyworld.scene import SHAPES, Thing

Corners = npt.NDArray[np.float64]


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


def turned_outline(shape: str, turn: float) -> Corners:
    """The outline turned by `turn` degrees clockwise, (N, 2)."""
    angle = math.radians(turn)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    corners: Corners = np.asarray(outline(shape)) @ rotation
    return corners


def corners_of(thing: Thing) -> Corners:
    """The thing's corners as fractions of the image's side, (N, 2)."""
    return turned_outline(thing.shape, thing.turn) * thing.size + (thing.x, thing.y)
