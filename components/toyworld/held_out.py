"""What no scene of the web or of the labelled set shows, so that a prompt can ask for something new.

Looks (a colour and a shape), pairs of looks, counts of a look and places of a look. All are fixed for good:
they depend on no seed.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache

from components.randomness import derive_seed
from components.toyworld.scene import Scene, cell
from components.toyworld.statements import Statements

Look = tuple[str, str]  # (colour, shape)

# One in ten, each shape and colour at most once: both are seen often, but never together.
LOOKS: frozenset[Look] = frozenset(
    {("green", "star"), ("orange", "cross"), ("purple", "square"), ("cyan", "triangle")}
)
ONE_IN = 10  # of the pairs, of the counts and of the places


def look_is_held_out(look: Look) -> bool:
    return look in LOOKS


def pair_is_held_out(a: Look, b: Look) -> bool:
    """Whether these two are never seen in one image, in whatever order."""
    return _one_in_ten("pair", *sorted((a, b)))


def count_is_held_out(look: Look, count: int) -> bool:
    """Whether an image never has exactly so many (two or more) things of this look."""
    return count > 1 and _one_in_ten("count", look, str(count))


def place_is_held_out(look: Look, place: str) -> bool:
    """Whether a thing of this look is never in that cell."""
    return _one_in_ten("place", look, place)


def looks_are_held_out(looks: Sequence[Look]) -> bool:
    """Whether a scene of these looks, wherever they stand, is held out."""
    counts = Counter(looks)
    different = list(counts)
    return (
        any(map(look_is_held_out, different))
        or any(count_is_held_out(look, count) for look, count in counts.items())
        or any(pair_is_held_out(a, b) for i, a in enumerate(different) for b in different[:i])
    )


def is_held_out(scene: Scene) -> bool:
    """Whether the scene shows anything that is held out."""
    looks = [(thing.colour, thing.shape) for thing in scene.things]
    return looks_are_held_out(looks) or any(
        place_is_held_out(look, cell(thing)) for look, thing in zip(looks, scene.things, strict=True)
    )


def states_held_out(stated: Statements) -> bool:
    """Whether the statements alone say that something held out is there, whatever they leave open."""
    known = [claim for claim in stated.claims if claim.colour and claim.shape]
    counts: Counter[Look] = Counter()
    for claim in known:
        counts[(str(claim.colour), str(claim.shape))] += claim.count
    return looks_are_held_out(list(counts.elements())) or any(
        place_is_held_out((str(claim.colour), str(claim.shape)), place)
        for claim in known
        for place in claim.cells
    )


@cache
def _one_in_ten(purpose: str, *parts: Look | str) -> bool:
    words = [word for part in parts for word in ([part] if isinstance(part, str) else part)]
    return derive_seed(0, f"held-out {purpose}", *words) % ONE_IN == 0
