"""What a prompt in free words says about a toy scene: keywords, lists, synonyms, other orders of words.

`parse` (parsing.py) is the strict grammar that captions are judged by. A prompt that it does not know is read
here, word by word; words that say nothing of a scene are passed over, and what may say something that is not
understood makes it None. An upsampler is then given the same statements in plain words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from components.toyworld.free_words import (
    ADJECTIVES,
    ARTICLES,
    COLOUR_OF,
    EVERY_CORNER,
    KNOWN,
    NOT_READ,
    NUMBER_OF,
    PICTURES,
    PLAIN,
    POSITION_OF,
    SHAPE_OF,
    SIZE_OF,
    STOP,
    VERTICAL_RELATION_OF,
    WITHIN_PLACE,
    words_of,
)
from components.toyworld.manners import OPPOSITE, write
from components.toyworld.parsing import parse
from components.toyworld.refinement import is_consistent
from components.toyworld.scene import BACKGROUNDS, CELLS
from components.toyworld.statements import Claim, Statements

MOST_THINGS = 4  # of a scene
CORNERS = tuple(cell for cell in CELLS if " " in cell)
DIRECTIONS = ("above", "below", "left", "right")  # in the order of a diagonal's words


def in_plain_words(prompt: str) -> str:
    """The prompt, or what it says in the words of a caption where only free reading understands it."""
    if parse(prompt) is not None:
        return prompt
    read = read_freely(prompt)
    return prompt if read is None else write(read)


def read_freely(text: str) -> Statements | None:
    """The statements of a text in free words; None where it may say something that is not understood."""
    reader = _Reader(words_of(text))
    try:
        reader.read()
        stated = reader.statements()
    except _NotUnderstoodError:
        return None
    return stated if is_consistent(stated) else None


class _NotUnderstoodError(Exception):
    pass


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
        if getattr(self, name) not in (None, value):
            raise _NotUnderstoodError
        setattr(self, name, value)

    def claim(self) -> Claim:
        count = self.count or (0 if self.is_plural else 1)
        if self.is_plural and count < 2:
            raise _NotUnderstoodError
        places = self.places
        if count == 1 and places:  # "up in the top corner on the left"
            places = [[position for run in places for position in run]]
        if len(places) not in (0, count):
            raise _NotUnderstoodError
        return Claim(count, self.size, self.colour, self.shape, tuple(map(_cell, places)))


class _Reader:
    """Goes through the words once. `next`: the thing whose noun is still to come."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words, self.at = list(words), 0
        self.things: list[_Thing] = []
        self.next = _Thing()
        self.relation: list[str] = []
        self.turned = False  # "with a star to its left": the relation is the second thing's to the first
        self.background: str | None = None
        self.places_first = False

    def read(self) -> None:
        while self.at < len(self.words):
            if not self._relation() and not self._place():
                self._word(self.words[self.at])
                self.at += 1

    def statements(self) -> Statements:
        claims = tuple(thing.claim() for thing in self.things)
        if not claims or self.next != _Thing() or sum(claim.count for claim in claims) > MOST_THINGS:
            raise _NotUnderstoodError
        words = sorted(set(self.relation), key=DIRECTIONS.index)
        if words and (len(claims) != 2 or any(claim.count != 1 for claim in claims)):
            raise _NotUnderstoodError
        if any(OPPOSITE[word] in words for word in words):
            raise _NotUnderstoodError
        relation = " ".join(OPPOSITE[word] if self.turned else word for word in words)
        return Statements(claims, relation or None, self.background)

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
                raise _NotUnderstoodError  # a thing of such a colour is not of this world
            self.background = word
        elif word == EVERY_CORNER:
            (self.things[-1] if self.things else self.next).places += [corner.split() for corner in CORNERS]
        else:
            self._other(word)

    def _noun(self, shape: str | None, is_plural: bool) -> None:
        is_bare = self.next == _Thing() and self._word_at(self.at - 1) not in ARTICLES
        if is_bare and self.things and self.things[-1].shape == shape:
            return  # "blue star, white background, star at the top"
        self.next.shape, self.next.is_plural = shape, is_plural
        self.things.append(self.next)
        self.next = _Thing()

    def _other(self, word: str) -> None:
        """A word that says nothing, unless it names a thing ("a dog") or describes one ("a striped star")."""
        if word in NOT_READ or word.isdigit():
            raise _NotUnderstoodError
        if word not in KNOWN:
            before, after = self._word_at(self.at - 1), self._after(1)
            if before in ARTICLES or before in NUMBER_OF or after in SHAPE_OF or after in SIZE_OF:
                raise _NotUnderstoodError

    def _number(self, number: int) -> None:
        last = self.things[-1] if self.things else None
        if last is None or self._noun_after(self.at + 1) is not None:
            self.next.set("count", number)
        elif last.is_plural and last.count is None:
            last.set("count", number)  # "red circles, three of them"
        elif number != 1:  # "two circles, one at the left"
            raise _NotUnderstoodError

    def _described(self) -> _Thing:
        """The thing that an adjective here is about: the next one, if its noun follows, else the last."""
        if self._noun_after(self.at) is not None or not self.things:
            return self.next
        return self.things[-1]

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

    def _relation(self) -> bool:
        """Read "to its right", "below it"; "above and to the left of"; "to the left of", "on top of"."""
        return self._turned_relation() or self._vertical_relation() or self._side_relation()

    def _turned_relation(self) -> bool:
        word, following = self.words[self.at], self._after(1)
        if word in ("to", "on", "at") and following in ("its", "their") and self._after(2) in OPPOSITE:
            return self._related(self._after(2), 3, turned=True)
        if word in VERTICAL_RELATION_OF and following == "it":
            return self._related(VERTICAL_RELATION_OF[word], 2, turned=True)
        if word in ("left", "right") and (following, self._after(2)) == ("of", "it"):
            return self._related(word, 3, turned=True)
        return False

    def _vertical_relation(self) -> bool:
        above_or_below = VERTICAL_RELATION_OF.get(self.words[self.at])
        named = self._word_at(self._skip(self.at + 1, (*ARTICLES, *PLAIN)))
        if above_or_below is None or named in BACKGROUNDS:  # "over a white background"
            return False
        side = self._skip(self.at + 1, ("and", "to", "on", "the", STOP))
        if self._word_at(side) in ("left", "right") and self._is_of_a_thing(side + 1):
            self.relation.append(above_or_below)
            return self._related(self._word_at(side), side + 2 - self.at)
        return self._related(above_or_below, 1)

    def _side_relation(self) -> bool:
        word = self.words[self.at]
        return word in ("left", "right") and self._is_of_a_thing(self.at + 1) and self._related(word, 2)

    def _related(self, word: str, steps: int, *, turned: bool = False) -> bool:
        if not self.things or (self.relation and turned != self.turned):
            raise _NotUnderstoodError
        self.relation.append(word)
        self.turned = turned
        self.at += steps
        return True

    def _is_of_a_thing(self, at: int) -> bool:
        """Whether "of" stands here, and what follows is not the picture."""
        return (
            self._word_at(at) == "of" and self._word_at(self._skip(at + 1, (*ARTICLES, "my"))) not in PICTURES
        )

    def _place(self) -> bool:
        """Read a cell: "top left", "upper right-hand corner", "in the middle", "left side"."""
        end, found = self.at, list[str]()
        while (word := self._word_at(end)) in POSITION_OF or (found and word in WITHIN_PLACE):
            if found and self._is_of_a_thing(end + 1):
                break  # "at left left of a star"
            if word in POSITION_OF:
                found.append(POSITION_OF[word])
            end += 1
        if not found:
            return False
        is_adjective = self._word_at(self.at - 1) in ARTICLES and self._noun_after(end, ()) is not None
        self.places_first |= not self.things
        (self.next if is_adjective or self.places_first else self.things[-1]).places.append(found)
        self.at = end
        return True


def _cell(positions: Sequence[str]) -> str:
    rows, columns = ({*positions} & {*pair} for pair in (("top", "bottom"), ("left", "right")))
    if len(rows) > 1 or len(columns) > 1:
        raise _NotUnderstoodError
    return " ".join([*rows, *columns]) or "centre"
