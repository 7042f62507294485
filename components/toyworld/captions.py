"""Captions of a scene, short and long, in many manners.

The short one names the things and, where one axis clearly dominates, the relation of a pair. The long one
leaves nothing open: sizes, places, relation and background, too.
"""

from collections import Counter

import numpy as np

from components.toyworld.manners import PLAIN, draw_manner, shuffled, write
from components.toyworld.scene import Scene, Thing, cell, relation_of, size_word
from components.toyworld.statements import Claim, Statements


def caption_short(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """What is there. rng: draws a manner and an order; None: the plain manner, in reading order."""
    return _written(state_short(scene), rng)


def caption_long(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """Everything: things, sizes, places, the relation of a pair, the background. rng: see caption_short."""
    return _written(state_all(scene), rng)


def state_short(scene: Scene) -> Statements:
    """Looks and counts, and the relation of a pair that stands clearly beside or above each other."""
    looks = Counter((thing.colour, thing.shape) for thing in in_reading_order(scene))
    claims = tuple(Claim(count, None, colour, shape) for (colour, shape), count in looks.items())
    relation = _pair_relation(scene) if len(claims) == 2 else None
    return Statements(claims, None if relation and " " in relation else relation)


def state_all(scene: Scene) -> Statements:
    """Everything that a text can state of the scene."""
    groups: dict[tuple[str, str, str], list[Thing]] = {}
    for thing in in_reading_order(scene):
        groups.setdefault((size_word(thing), thing.colour, thing.shape), []).append(thing)
    claims = tuple(
        Claim(len(things), *look, cells=tuple(map(cell, things))) for look, things in groups.items()
    )
    relation = _pair_relation(scene) if len(claims) == 2 else None
    return Statements(claims, relation, scene.background)


def states_all(stated: Statements) -> bool:
    """Whether nothing is left open: size, colour, shape and place of every thing, and the background."""
    return stated.background is not None and all(
        claim.size and claim.colour and claim.shape and claim.cells for claim in stated.claims
    )


def in_reading_order(scene: Scene) -> list[Thing]:
    """The upper half before the lower, each from left to right."""
    return sorted(scene.things, key=lambda thing: (thing.y >= 0.5, thing.x))


def _pair_relation(scene: Scene) -> str | None:
    """How the first of two things in reading order stands to the second; None of any other number."""
    if len(scene.things) != 2:
        return None
    first, second = in_reading_order(scene)
    return relation_of(first, second)


def _written(stated: Statements, rng: np.random.Generator | None) -> str:
    return write(stated, PLAIN) if rng is None else write(shuffled(stated, rng), draw_manner(rng))
