"""What is wrong with what a user gave, and errors as one line."""

from typing import TYPE_CHECKING

from components.redaction import redacted

if TYPE_CHECKING:
    from pydantic import ValidationError

REASON_LENGTH = 200  # characters of another library's error that one of ours quotes


class InputError(ValueError):
    """What the user gave cannot be used: one line that says what, where and what to do.

    A ValueError, so that pydantic takes it from a validator. Any other ValueError is a bug. Secrets in the
    text are hidden.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(redacted(text))


def one_line(error: object, limit: int | None = None) -> str:
    """The text of an error (or of anything) on one line, every run of white space one blank, secrets hidden.

    limit: the most characters; by default all. An exception without a text gives the name of its type.
    """
    text = redacted(" ".join(str(error).split()))  # before it is cut: half a password is one, too
    if not text and isinstance(error, BaseException):
        text = type(error).__name__
    return text[:limit]


def first_fault(error: "ValidationError") -> str:
    """The first thing that pydantic found wrong, on one line: `field: what is wrong`."""
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    what = one_line(fault["msg"]).removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
