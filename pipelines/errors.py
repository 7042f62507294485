"""What can go wrong for a user, each with its exit status; everything else is a bug of ours.

Raised by the stages and the config, printed as one line by the command. Across processes they go as
`serialize_error`: through Ray only the text of a traceback would come.
"""

import traceback
from typing import Any


class StraightshotError(Exception):
    """One line that says what, where and what to do."""

    exit_status = 1


class ConfigError(StraightshotError):
    """Bad usage or a bad config value, found before any work."""

    exit_status = 2


class StageFailed(StraightshotError):
    """A stage could not finish; what it had finished is kept for the next run."""


class StageBusy(StraightshotError):
    """Another run owns this output."""


class GateRefused(StraightshotError):
    """A quality gate said no; nothing was promoted."""

    exit_status = 3


def serialize_error(error: Exception) -> dict[str, Any]:
    """A worker's error in words, as JSON takes them: its line, whose fault it is, and where it was raised."""
    return {
        "error": " ".join(str(error).split()) or type(error).__name__,
        "config": isinstance(error, ConfigError),
        "traceback": "".join(traceback.format_exception(error)),
    }


def raise_serialized(told: dict[str, Any]) -> None:
    """Raise the error in a worker's event, if it is one; its traceback is a note, for --debug."""
    if "error" in told:
        error = (ConfigError if told["config"] else StageFailed)(told["error"])
        error.add_note(told["traceback"])
        raise error
