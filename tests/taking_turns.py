"""CPU time of several works that take turns, so that what else the machine does falls on all of them."""

import time
from collections.abc import Callable, Mapping
from statistics import median


def median_seconds(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Of each work, the median of its rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = time.process_time()
            work()
            seconds[name].append(time.process_time() - started)
    return {name: median(times) for name, times in seconds.items()}
