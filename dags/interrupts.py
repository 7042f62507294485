"""Ctrl-C while a stage runs.

Dagster has it raise an exception of its own. Ray's C++ side lets only KeyboardInterrupt through a call that
waits, and answers any other with a SystemError.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Within it Ctrl-C raises KeyboardInterrupt, as in any Python program. Dagster ends a run on it, too."""
    if threading.current_thread() is not threading.main_thread():  # where no handler can be set, none runs
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
