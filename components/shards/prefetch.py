"""Working ahead on threads, results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

X = TypeVar("X")
Y = TypeVar("Y")


def ahead(
    pool: ThreadPoolExecutor | None, function: Callable[[X], Y], inputs: Iterable[X], depth: int
) -> Iterator[Y]:
    """`map(function, inputs)` with up to `depth` results computed ahead of the one that is due.

    Without a pool, nothing is computed ahead. An error of `function` comes out in its place in the order,
    one of `inputs` at once.
    """
    if pool is None:
        yield from map(function, inputs)
        return
    pending: deque[Future[Y]] = deque()
    for item in inputs:
        pending.append(pool.submit(function, item))
        if len(pending) > depth:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
