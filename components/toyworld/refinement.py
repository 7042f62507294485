"""Whether one text about the toy world says all that another says, and nothing that goes against it.

`refines` is what an upsampled prompt must do: any image that is exactly as the caption says is then exactly
as the prompt says (statements.are_exact).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from components.toyworld.manners import OPPOSITE
from components.toyworld.scene import CELLS
from components.toyworld.statements import Claim, Statements

COLUMNS = 3  # of the nine cells


@dataclass(frozen=True)
class _Stated:
    """One thing as a text states it; None is open."""

    size: str | None
    colour: str | None
    shape: str | None
    cell: str | None


def refines(written: Statements, asked: Statements) -> bool:
    """Whether `written` states all that `asked` does: as many things, each with what was asked of it, the
    relation (stated, or implied by the cells) and the background.
    """
    things, wanted = _things(written.claims), _things(asked.claims)
    if len(things) != len(wanted) or asked.background not in (None, written.background):
        return False
    return any(
        all(_fits(things[i], want) for i, want in zip(order, wanted, strict=True))
        and _relation_is_stated(written, asked.relation, things, order)
        for order in permutations(range(len(things)))
    )


def is_consistent(stated: Statements) -> bool:
    """Whether no two things are in one cell, where two do not fit, and the relation agrees with the cells.

    Of two things in one row neither is above: of 20,000 pairs of the web 2 stood so.
    """
    things = _things(stated.claims)
    cells = [thing.cell for thing in things if thing.cell is not None]
    if len(set(cells)) < len(cells):
        return False
    if stated.relation is None or len(things) != 2:
        return stated.relation is None
    first, second = (thing.cell for thing in things)
    if first is None or second is None:
        return True
    return all(_offset(word, first, second) > 0 for word in stated.relation.split())


def _things(claims: Sequence[Claim]) -> list[_Stated]:
    return [
        _Stated(claim.size, claim.colour, claim.shape, place)
        for claim in claims
        for place in (claim.cells or (None,) * claim.count)
    ]


def _fits(thing: _Stated, want: _Stated) -> bool:
    return (
        want.size in (None, thing.size)
        and want.colour in (None, thing.colour)
        and want.shape in (None, thing.shape)
        and want.cell in (None, thing.cell)
    )


def _relation_is_stated(
    written: Statements, relation: str | None, things: Sequence[_Stated], order: Sequence[int]
) -> bool:
    """Whether the first of two things, in `order`, is said to stand so to the second."""
    if relation is None:
        return True
    if len(order) != 2:
        return False
    said = set(_turned(written.relation, order)) | set(_implied(*(things[i].cell for i in order)))
    return set(relation.split()) <= said


def _turned(relation: str | None, order: Sequence[int]) -> list[str]:
    words = (relation or "").split()
    return words if list(order) == [0, 1] else [OPPOSITE[word] for word in words]


def _implied(first: str | None, second: str | None) -> Iterator[str]:
    """What the cells of two things imply: in one row one is left of the other, as they do not touch."""
    if first is not None and second is not None:
        for word, opposite in (("left", "right"), ("above", "below")):
            other = "above" if word == "left" else "left"
            if _offset(other, first, second) == 0 and (offset := _offset(word, first, second)):
                yield word if offset > 0 else opposite


def _offset(relation: str, first: str, second: str) -> int:
    """How many cells the first lies in that direction from the second."""
    (row_1, column_1), (row_2, column_2) = (divmod(CELLS.index(cell), COLUMNS) for cell in (first, second))
    right, down = column_2 - column_1, row_2 - row_1
    return {"left": right, "right": -right, "above": down, "below": -down}[relation]
