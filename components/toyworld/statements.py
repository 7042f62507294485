"""What a text states about an image, and whether it holds: the toy world's one definition of truth.

The same rules judge a caption of a scene (captions.py parses it) and an image of a prompt (the scorer detects
what is in it).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from components.toyworld.scene import Visible, cell, relation_of, size_word


@dataclass(frozen=True)
class Claim:
    """Exactly `count` things of this size, colour and shape, at these cells. None, or no cell: left open."""

    count: int
    size: str | None
    colour: str | None
    shape: str | None
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Statements:
    """A text, parsed. `relation` is that of the first claim's thing to the second's."""

    claims: tuple[Claim, ...]
    relation: str | None = None
    background: str | None = None

    @property
    def count(self) -> int:
        """How many things it speaks of."""
        return sum(claim.count for claim in self.claims)


class Seen(Protocol):
    """A scene, or what was detected in an image."""

    @property
    def background(self) -> str | None: ...
    @property
    def things(self) -> Sequence[Visible]: ...


def are_true(stated: Statements, seen: Seen) -> bool:
    """Whether every statement holds; things of which nothing is stated may be there, too.

    Things are assigned to claims: each claim takes exactly its count, no thing is taken twice, and no thing
    that is left over is one that a claim speaks of ("two red circles" is false of three).
    """
    if stated.background not in (None, seen.background):
        return False
    return any(
        _relation_holds(stated, assigned) and not _left_over(stated, seen.things, assigned)
        for assigned in _assignments(stated.claims, seen.things)
    )


def are_exact(stated: Statements, seen: Seen) -> bool:
    """Whether every statement holds and nothing else is there."""
    return len(seen.things) == stated.count and are_true(stated, seen)


def relation_holds(relation: str, a: Visible, b: Visible) -> bool:
    """Whether `a` stands in the relation to `b`; a diagonal pair holds both its words, as GenEval counts."""
    return set(relation.split()) <= set(relation_of(a, b).split())


def fits(thing: Visible, claim: Claim) -> bool:
    """Whether the claim speaks of such a thing, wherever it is."""
    return (
        claim.shape in (None, thing.shape)
        and claim.colour in (None, thing.colour)
        and claim.size in (None, size_word(thing))
    )


Assigned = tuple[tuple[Visible, ...], ...]  # the things of each claim


def _assignments(claims: Sequence[Claim], things: Sequence[Visible]) -> Iterator[Assigned]:
    if not claims:
        yield ()
        return
    claim, *rest = claims
    fitting = [i for i, thing in enumerate(things) if fits(thing, claim)]
    for chosen in combinations(fitting, claim.count):
        taken = tuple(things[i] for i in chosen)
        if claim.cells and sorted(map(cell, taken)) != sorted(claim.cells):
            continue
        others = [thing for i, thing in enumerate(things) if i not in chosen]
        for assigned in _assignments(rest, others):
            yield (taken, *assigned)


def _left_over(stated: Statements, things: Sequence[Visible], assigned: Assigned) -> bool:
    """Whether a thing that no claim took is one that a claim speaks of."""
    taken = {id(thing) for group in assigned for thing in group}
    rest = [thing for thing in things if id(thing) not in taken]
    return any(fits(thing, claim) for thing in rest for claim in stated.claims)


def _relation_holds(stated: Statements, assigned: Assigned) -> bool:
    if stated.relation is None:
        return True
    first, second = assigned[0], assigned[1]
    return len(first) == len(second) == 1 and relation_holds(stated.relation, first[0], second[0])
