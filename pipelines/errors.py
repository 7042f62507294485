"""What can go wrong for a user, each with its exit status; everything else is a bug of ours.

Raised by the stages and the config, printed as one line by the command.
"""


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
