"""What can go wrong for a user, each with its exit status; everything else is a bug.

Raised by the stages and the config, printed as one line by the command. Between processes they travel as
`serialize_error`: of an exception that passes through Ray only its text would arrive.
"""

import errno
import traceback
from collections.abc import Mapping
from typing import Any

from components.errors import InputError, one_line
from components.redaction import redacted


class StraightshotError(Exception):
    """One line that says what, where and what to do. Secrets in it are hidden: errors travel everywhere."""

    exit_status = 1

    def __init__(self, text: str = "") -> None:
        super().__init__(redacted(text))


class ConfigError(StraightshotError):
    """Bad usage or a bad config value, found before any work."""

    exit_status = 2


class StageFailed(StraightshotError):
    """A stage could not finish; what it had finished is kept for the next run."""


class HeadLost(StageFailed):
    """The Ray that a stage ran on has lost its head. This process joins no other, and ends with status 1."""


class StageBusy(StraightshotError):
    """Another run owns this output."""


class GateRefused(StraightshotError):
    """A quality gate said no; nothing was promoted."""

    exit_status = 3


class UnexpectedError(Exception):
    """A bug that showed in another process: the type and text of the error there, its traceback as a note."""


# What a user can set right: a setting, a file, a disk. All else, other ValueErrors too, is a bug.
USER_ERRORS = (StraightshotError, InputError, OSError)


def describe(error: BaseException) -> str:
    """An error as one line: a failed system call with its file and what to do, a bug with its type."""
    if isinstance(error, OSError) and error.errno is not None:
        full = error.errno == errno.ENOSPC
        reason = "no space left, free some" if full else error.strerror or one_line(error)
        return f"{error.filename or 'HOME'}: {reason}; the same command goes on from here"
    text = one_line(error)
    if isinstance(error, (*USER_ERRORS, UnexpectedError)) or not str(error).strip():
        return text
    return f"{type(error).__name__}: {text}"


def serialize_error(error: Exception) -> dict[str, Any]:
    """A worker's error as JSON takes it: its line, its kind, and the traceback of where it was raised."""
    if isinstance(error, ConfigError):
        kind = "config"
    else:
        kind = "failed" if isinstance(error, USER_ERRORS) else "unexpected"
    return {
        "error": describe(error),
        "kind": kind,
        "traceback": traceback_of(error),
    }


def traceback_of(error: BaseException) -> str:
    """The traceback of an error and its causes, secrets hidden."""
    return redacted("".join(traceback.format_exception(error)))


def raise_serialized(event: Mapping[str, Any]) -> None:
    """Raise the error in a worker's event, if it is one; its traceback is a note, for --debug."""
    if "error" in event:
        kinds = {"config": ConfigError, "failed": StageFailed, "unexpected": UnexpectedError}
        error = kinds[event["kind"]](event["error"])
        error.add_note(event["traceback"])
        raise error
