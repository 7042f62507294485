"""The one line of an error, and its exit status."""

from dataclasses import dataclass

from components.errors import InputError, one_line
from pipelines.errors import StraightshotError, describe

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # 130: as a shell reports a program that Ctrl-C ended
DEBUG_HINT = "run the same command with --debug for the traceback"


@dataclass(frozen=True)
class Ending:
    """How a command ends after an error. text: one line that says what, where and what to do."""

    text: str
    exit_status: int


def ending_of(error: BaseException) -> Ending:
    """A user's mistake as one line; anything else is a bug, whose line names the way to its traceback."""
    from typer import Abort
    from typer.exceptions import TyperException

    match error:
        case KeyboardInterrupt() | Abort():
            text, exit_status = "interrupted; the same command goes on from here", INTERRUPTED
        case StraightshotError():
            text, exit_status = describe(error), error.exit_status
        case TyperException():
            text, exit_status = (
                f"{one_line(error.format_message()).rstrip('.')}. See straightshot --help.",
                USAGE,
            )
        case InputError():
            text, exit_status = describe(error), USAGE
        case OSError():
            text, exit_status = describe(error), FAILED
        case _:
            text, exit_status = f"{describe(error)}; {DEBUG_HINT}", FAILED
    return Ending(text, exit_status)
