"""How a stage's error reaches Dagster: our one line first, and no secret in what its history keeps.

Of any exception Dagster keeps the traceback and those of its causes, other libraries' texts included. So a
stage's error is raised as a failure that has its line and, for a bug, the traceback; the command takes the
error itself out of it again.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from components.errors import InputError
from pipelines.errors import USER_ERRORS, StageFailed, describe, traceback_of


class Failure(dg.Failure):
    """A stage's error as the page shows it. error: what the stage raised."""

    def __init__(self, error: Exception) -> None:
        is_bug = not isinstance(error, USER_ERRORS)
        metadata = {"traceback": dg.MetadataValue.text(traceback_of(error))} if is_bug else {}
        super().__init__(describe(error), metadata)
        # An input of a stage, unlike one on the command line, is no bad usage.
        self.error = StageFailed(describe(error)) if isinstance(error, InputError) else error


@contextmanager
def shown_failures() -> Iterator[None]:
    """Within it an error is raised as a Failure."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  the end of a stage's stack
        raise Failure(error) from None
