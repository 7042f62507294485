"""Where corpora, labelled sets and uploads lie: on a disk or in an object store, behind one interface."""

import sys

from upath import UPath

from components.errors import InputError


def location(path: str) -> UPath:
    """The path or URL. Raises InputError, one line, where nothing here reads such a URL.

    What an object store listed before is forgotten: its client keeps listings for as long as the process
    lives, and a daemon's lives long.
    """
    try:
        found = UPath(path)
        found.fs.invalidate_cache()
    except (ImportError, ValueError) as error:  # no package for the protocol, or no such protocol
        raise InputError(f"{path} cannot be read: {error}; local paths and s3:// can") from error
    return found


def reading_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What reading a file raises when it cannot be reached, and those others, for an `except` clause.

    boto's own errors (no credentials, no server) are no OSError; its package is loaded once S3 was asked for.
    """
    boto = sys.modules.get("botocore.exceptions")
    return (OSError, *others, boto.BotoCoreError, boto.ClientError) if boto else (OSError, *others)
