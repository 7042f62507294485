"""How something was made, as receipts and journals say: library versions, peak memory, the time, by whom."""

import getpass
import importlib.metadata
import platform
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache

import psutil

LIBRARIES = (
    "torch",
    "ray",
    "mlflow",
    "dagster",
    "webdataset",
    "accelerate",
    "transformers",
    "open-clip-torch",
)


@cache
def library_versions() -> dict[str, str]:
    """Versions of what the outputs depend on; a library that is not installed is left out."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@contextmanager
def peak_memory(interval: float = 0.5) -> Iterator[list[int]]:
    """Sample the resident bytes of this process and its children every `interval` seconds.

    Yields a list whose one item is the largest single process so far, in bytes.
    """
    peak, done, this_process = [0], threading.Event(), psutil.Process()

    def sample() -> None:
        while True:
            for process in [this_process, *this_process.children(recursive=True)]:
                try:
                    peak[0] = max(peak[0], process.memory_info().rss)
                except psutil.Error:
                    continue  # it ended between the listing and the look
            if done.wait(interval):
                return

    thread = threading.Thread(target=sample, name="peak-memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def now() -> str:
    """The time, UTC, ISO 8601, to the microsecond: two runs of a tiny stage differ."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def user_and_host() -> str:
    """Who does this, such as ann@node-7; "unknown" for a container's user without a name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
