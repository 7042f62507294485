"""Ends the servers of a `straightshot ui` that was killed and could not: python -m dags.pages.keeper.

It is told their process ids, a line each, on its standard input. When `ui` ends, however it ends, the system
closes that pipe; whatever server is still there then, of itself or below it, is ended.
"""

import sys
from collections.abc import Iterator
from contextlib import suppress

import psutil

STOP_SECONDS = 10.0


def end_tree(process: psutil.Process) -> None:
    """Terminate a process, then kill it and all below it that are left."""
    with suppress(psutil.NoSuchProcess):
        below = process.children(recursive=True)
        process.terminate()
        psutil.wait_procs([process], timeout=STOP_SECONDS)
        for left in (process, *below):
            with suppress(psutil.NoSuchProcess):
                left.kill()


def main() -> None:
    """Until the input ends."""
    for process in list(_told()):
        end_tree(process)


def _told() -> Iterator[psutil.Process]:
    """A psutil.Process knows when its process was born: another one of the same id is not it."""
    for line in sys.stdin:
        with suppress(psutil.NoSuchProcess):
            yield psutil.Process(int(line))


if __name__ == "__main__":
    main()
