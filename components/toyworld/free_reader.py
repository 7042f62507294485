"""Reads a prompt in free words from left to right: things, what is said of them, and one relation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from components.toyworld.free_relations import NotUnderstoodError, Relations
from components.toyworld.free_words import (
    ADJECTIVES,
    ARTICLES,
    BEHIND_WAYS,
    COLOUR_OF,
    EVERY_CORNER,
    KNOWN,
    NEGATIONS,
    NOT_READ,
    NUMBER_OF,
    PICTURES,
    PIECES,
    PLAIN,
    POSITION_OF,
    PURPOSES,
    SHAPE_OF,
    SIZE_OF,
    STOP,
    TOGETHER,
    VERTICAL_RELATION_OF,
    WAYS,
    WITHIN_PLACE,
)
from components.toyworld.manners import OPPOSITE
from components.toyworld.scene import BACKGROUNDS, CELLS
from components.toyworld.statements import Claim, Statements

MOST_THINGS = 4  # of a scene
CORNERS = tuple(cell for cell in CELLS if " " in cell)
ABOVE_OR_BELOW = {"top": "above", "bottom": "below"}


@dataclass
class _Thing:
    """A claim that is being read. count: None until a number is found. places: the positions of each run."""

    count: int | None = None
    size: str | None = None
    colour: str | None = None
    shape: str | None = None
    places: list[list[str]] = field(default_factory=list)
    is_plural: bool = False

    def set(self, name: str, value: object) -> None:
        """Raises NotUnderstoodError where something else was said before."""
        if getattr(self, name) not in (None, value):
            raise NotUnderstoodError
        setattr(self, name, value)

    def may_be(self, other: "_Thing") -> bool:
        """Whether all that is said of this one was said of the other."""
        said = [(getattr(self, name), getattr(other, name)) for name in ("count", "size", "colour")]
        return all(mine in (None, its) for mine, its in said) and not self.places

    def claim(self) -> Claim:
        """Raises NotUnderstoodError where number and places do not fit."""
        count = self.count or (0 if self.is_plural else 1)
        if self.is_plural and count < 2:
            raise NotUnderstoodError
        places = self.places
        if count == 1 and places:  # "up in the top corner on the left"
            places = [[position for run in places for position in run]]
        if len(places) not in (0, count):
            raise NotUnderstoodError
        return Claim(count, self.size, self.colour, self.shape, tuple(map(_cell, places)))


class Reader:
    """Goes through the words once. `next`: the thing whose noun is still to come."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words, self.at = list(words), 0
        self.things: list[_Thing] = []
        self.next = _Thing()
        self.shared = _Thing()  # what is said of all: "both small"
        self.background: str | None = None
        self.places_first = False
        self.relations = Relations()

    def read(self) -> None:
        """Raises NotUnderstoodError."""
        while self.at < len(self.words):
            if not self._relation() and not self._place():
                self._word(self.words[self.at])
                self.at += 1

    def statements(self) -> Statements:
        """What was read. Raises NotUnderstoodError where it does not fit together."""
        for thing in self.things:
            for name in ("size", "colour"):
                if (value := getattr(self.shared, name)) is not None:
                    thing.set(name, value)
        claims = tuple(thing.claim() for thing in self.things)
        if any(claim.shape == claim.colour == claim.size and not claim.cells for claim in claims):
            raise NotUnderstoodError  # "something cute"
        if not claims or self.next != _Thing() or sum(claim.count for claim in claims) > MOST_THINGS:
            raise NotUnderstoodError
        relation = self.relations.between_two()
        if relation and (len(claims) != 2 or any(claim.count != 1 for claim in claims)):
            raise NotUnderstoodError
        return Statements(claims, relation, self.background)

    def _word(self, word: str) -> None:
        if word in SHAPE_OF:
            self._noun(*SHAPE_OF[word])
        elif word in NUMBER_OF:
            self._number(NUMBER_OF[word])
        elif word in SIZE_OF:
            self._described().set("size", SIZE_OF[word])
        elif word in COLOUR_OF:
            self._described().set("colour", COLOUR_OF[word])
        elif word in BACKGROUNDS:
            if self._after(1) in SHAPE_OF or self.background not in (None, word):
                raise NotUnderstoodError  # a thing of such a colour is not of this world
            self.background = word
        elif word in ("former", "latter") and len(self.things) == 2:
            self.relations.name(int(word == "latter"))
        elif word == EVERY_CORNER:
            places = (self._last() or self.next).places
            places += [corner.split() for corner in CORNERS if corner.split() not in places]
        else:
            self._other(word)

    def _noun(self, shape: str | None, is_plural: bool) -> None:
        """A new thing, or one that was named before: "the star", or "star" straight after it."""
        number = self._named_before(shape)
        if number is None:
            self.next.shape, self.next.is_plural = shape, is_plural
            self.things.append(self.next)
            number = len(self.things) - 1
        self.next = _Thing()
        self.relations.name(number)

    def _named_before(self, shape: str | None) -> int | None:
        _, determiner = self._determiner()
        named = [i for i, thing in enumerate(self.things) if thing.shape == shape and self.next.may_be(thing)]
        if determiner == "the" and len(named) == 1:
            return named[0]
        if self.next != _Thing() or determiner in ARTICLES or not named:
            return None
        is_told_of = determiner in ("", STOP) and self._after(1) in {*ADJECTIVES, *POSITION_OF}
        return named[-1] if named[-1] == self.relations.last or (is_told_of and len(named) == 1) else None

    def _determiner(self) -> tuple[str, str]:
        """The word before the noun here and its adjectives, and the one before that, first."""
        first = self.at
        while self._word_at(first - 1) in ADJECTIVES:
            first -= 1
        return self._word_at(first - 2), self._word_at(first - 1)

    def _last(self) -> _Thing | None:
        """The thing that was named last."""
        return None if self.relations.last is None else self.things[self.relations.last]

    def _other(self, word: str) -> None:
        """A word that says nothing, unless it names a thing ("a dog") or describes one ("a striped star")."""
        if word in NOT_READ or word in NEGATIONS or word.isdigit():
            raise NotUnderstoodError
        if word == "behind":
            if not BACKGROUNDS.keys() & self._phrase() or SHAPE_OF.keys() & self._rest_of_phrase():
                raise NotUnderstoodError
        elif word not in KNOWN:
            before, determiner, after = *self._determiner(), self._after(1)
            is_named = determiner in ("a", "an", *NUMBER_OF) and before not in PURPOSES  # not "for a bar"
            is_named &= not PICTURES.intersection(self.words[self.at : self.at + 3])  # not "a price tag"
            if is_named or after in SHAPE_OF or (determiner == "the" and after in SIZE_OF):
                raise NotUnderstoodError

    def _number(self, number: int) -> None:
        last = self._last()
        if last is None or self._noun_after(self.at + 1) is not None:
            self.next.set("count", number)
        elif last.count is None and (last.is_plural or self._after(1) == PIECES):
            last.set("count", number)  # "red circles, three of them"
        elif number != 1:  # "two circles, one at the left"
            raise NotUnderstoodError

    def _described(self) -> _Thing:
        """What an adjective here is about: the next thing, if its noun follows, else the last, or all."""
        if self._noun_after(self.at) is not None:
            return self.next
        if TOGETHER.intersection(self._phrase()) and len(self.things) != 1:
            return self.shared
        return self._last() or self.next

    def _noun_after(self, at: int, between: Iterable[str] = ("and", "of", STOP)) -> str | None:
        """The noun that follows when adjectives and what may stand between them are passed over."""
        noun = self._word_at(self._skip(at, ADJECTIVES.union(between)))
        return noun if noun in SHAPE_OF else None

    def _after(self, steps: int) -> str:
        return self._word_at(self.at + steps)

    def _word_at(self, at: int) -> str:
        return self.words[at] if 0 <= at < len(self.words) else ""

    def _skip(self, at: int, words: Iterable[str]) -> int:
        while at < len(self.words) and self.words[at] in words:
            at += 1
        return at

    def _phrase(self) -> set[str]:
        """The words between the stops around this place."""
        start = self.at
        while start > 0 and self.words[start - 1] != STOP:
            start -= 1
        return {*self.words[start : self.at]} | self._rest_of_phrase()

    def _rest_of_phrase(self) -> set[str]:
        end = self.at
        while end < len(self.words) and self.words[end] != STOP:
            end += 1
        return {*self.words[self.at : end]}

    def _relation(self) -> bool:
        """Read "to its right", "below it"; "above and to the left of"; "to the left of", "on top of"."""
        return self._of_it() or self._vertical_relation() or self._side_relation()

    def _of_it(self) -> bool:
        word, following = self.words[self.at], self._after(1)
        if word in ("to", "on", "at") and following in ("its", "their") and self._after(2) in OPPOSITE:
            return self._related([self._after(2)], 3, of_it=True)
        if word in VERTICAL_RELATION_OF and following in ("it", "that", "this"):
            side = self._skip(self.at + 2, ("and", "to", "on", "the", "its"))
            sides = self.words[side : side + 1] if self._word_at(side) in ("left", "right") else []
            steps = side + 1 - self.at if sides else 2
            return self._related([VERTICAL_RELATION_OF[word], *sides], steps, of_it=True)
        if word in ("left", "right") and (following, self._after(2)) == ("of", "it"):
            return self._related([word], 3, of_it=True)
        return False

    def _vertical_relation(self) -> bool:
        above_or_below = VERTICAL_RELATION_OF.get(self.words[self.at])
        named = self._word_at(self._skip(self.at + 1, (*ARTICLES, *PLAIN)))
        if above_or_below is None or named in BACKGROUNDS:  # "over a white background"
            return False
        side = self._skip(self.at + 1, ("and", "to", "on", "the", STOP))
        if self._word_at(side) in ("left", "right") and (end := self._end_of_side(side)):
            words = [above_or_below, self._word_at(side)]
            return self._related(words, end - self.at, of_it=self._word_at(end) == "it")
        return self._related([above_or_below], 1)

    def _side_relation(self) -> bool:
        words, at = list[str](), self.at
        if (row := POSITION_OF.get(self.words[at])) in ABOVE_OR_BELOW:  # "to the upper left of"
            words, at = [ABOVE_OR_BELOW[row]], at + 1
        side = self._word_at(at)
        end = self._end_of_side(at) if side in ("left", "right") else 0
        return bool(end) and self._related([*words, side], end - self.at, of_it=self._word_at(end) == "it")

    def _end_of_side(self, at: int) -> int:
        """Behind "left of", "right-hand side of", "left from", where what follows is a thing; else 0."""
        of = self._skip(at + 1, ("hand", "side"))
        if self._word_at(of) not in ("of", "from"):
            return 0
        named = self._word_at(self._skip(of + 1, (*ARTICLES, "my", "this", "whole")))
        return 0 if named in PICTURES or named == "" else of + 1

    def _related(self, words: list[str], steps: int, *, of_it: bool = False) -> bool:
        self.relations.add(words, of_it=of_it)
        self.at += steps
        return True

    def _is_no_place(self, end: int) -> bool:
        return self.words[self.at] in WAYS and self._word_at(end) not in BEHIND_WAYS

    def _place(self) -> bool:
        """Read a cell: "top left", "upper right-hand corner", "in the middle", "left side"."""
        end, found = self.at, list[str]()
        while (word := self._word_at(end)) in POSITION_OF or (found and word in WITHIN_PLACE):
            if word in ("left", "right") and found and self._end_of_side(end):
                break  # "at left left of a star"
            if word in POSITION_OF:
                found.append(POSITION_OF[word])
            end += 1
        if not found or (end == self.at + 1 and self._is_no_place(end)):
            return False
        is_adjective = self._word_at(self.at - 1) in ARTICLES and self._noun_after(end, ()) is not None
        self.places_first |= not self.things
        last = self._last()
        (self.next if is_adjective or self.places_first or last is None else last).places.append(found)
        self.at = end
        return True


def _cell(positions: Sequence[str]) -> str:
    rows, columns = ({*positions} & {*pair} for pair in (("top", "bottom"), ("left", "right")))
    if len(rows) > 1 or len(columns) > 1:
        raise NotUnderstoodError
    return " ".join([*rows, *columns]) or "centre"
