"""Whether the network is there: what no server answered is believed only when some server answers.

A URL whose host cannot be reached is dead, or our own network is. While nothing at all is answered, such URLs
wait; the next answer settles them as dead, and too many of too many hosts mean that the network is gone.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from components.fetching.fetcher import Fetched

LOST_URLS = 50  # so many in a row without an answer,
LOST_HOSTS = 10  # of so many hosts, mean that the network is gone


class NetworkLost(Exception):
    """No server answers any more."""


class Outage:
    """Shared by all URLs that are asked for in one process, each within `counted`."""

    def __init__(self) -> None:
        self._active = 0
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Within it, a URL is asked for."""
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            self._release_if_nothing_else_runs()

    async def settled(self, host: str, fetched: Fetched) -> None:
        """Return when what became of a URL is to be believed. Raises NetworkLost."""
        if fetched.answered is None:
            return
        if fetched.answered:
            self._release()
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((host, future))
        hosts = {name for name, _ in self._waiting}
        if len(self._waiting) >= LOST_URLS and len(hosts) >= LOST_HOSTS:
            detail = fetched.rejection.detail if fetched.rejection else ""
            raise NetworkLost(
                f"no server answered the last {len(self._waiting)} URLs, of {len(hosts)} hosts ({detail})"
            )
        self._release_if_nothing_else_runs()
        await future

    def _release_if_nothing_else_runs(self) -> None:
        if len(self._waiting) >= self._active:
            self._release()

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_result(None)
