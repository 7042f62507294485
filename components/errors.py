"""What is wrong with what a user gave, and errors as one line."""

REASON_LENGTH = 200  # characters of another library's error that one of ours quotes


class InputError(ValueError):
    """What the user gave cannot be used: one line that says what, where and what to do.

    A ValueError, so that pydantic takes it from a validator. Any other ValueError is a bug.
    """


def one_line(error: object, limit: int | None = None) -> str:
    """The text of an error (or of anything) on one line, every run of white space one blank.

    limit: the most characters; by default all. An exception without a text gives the name of its type.
    """
    text = " ".join(str(error).split())
    if not text and isinstance(error, BaseException):
        text = type(error).__name__
    return text[:limit]
