"""Who stands where, as a prompt in free words tells it; for free_reader.py."""

from components.toyworld.manners import OPPOSITE

DIRECTIONS = ("above", "below", "left", "right")  # in the order of a diagonal's words


class NotUnderstoodError(Exception):
    """The text may say something that is not read here."""


class Relations:
    """Who stands where: each relation is of a thing, by number, to another one."""

    def __init__(self) -> None:
        self.facts: list[tuple[int, list[str], int]] = []  # subject, words, object
        self.last: int | None = None  # the thing that was named last
        self.open: tuple[int | None, list[str], int | None] | None = None  # one of the two is still to come

    def add(self, words: list[str], *, of_it: bool) -> None:
        """A relation of the thing named last. of_it: to the one before, or of the next one to it."""
        if self.open is not None or (of_it and self.last is None):
            raise NotUnderstoodError
        if of_it and self.last == 1:
            self.facts.append((1, words, 0))
        else:
            self.open = (None, words, self.last) if of_it else (self.last, words, None)

    def name(self, thing: int) -> None:
        """A thing is named, which may be what a relation waits for."""
        self.last = thing
        if self.open is None:
            return
        subject, words, other = self.open
        if other is not None:  # "to its right a star"
            self.open = None
            self.facts.append((thing, words, other))
        elif subject in (None, thing):  # "below the star, a circle"
            self.open = (None, words, thing)
        else:
            self.open = None
            self.facts.append((subject, words, thing))

    def between_two(self) -> str | None:
        """Of the first thing to the second, in a caption's words."""
        found: set[str] = set()
        for subject, words, other in self.facts:
            if {subject, other} != {0, 1}:
                raise NotUnderstoodError
            found.update(words if subject == 0 else [OPPOSITE[word] for word in words])
        if self.open is not None or any(OPPOSITE[word] in found for word in found):
            raise NotUnderstoodError
        return " ".join(sorted(found, key=DIRECTIONS.index)) or None
