"""Turns at a host: so many requests at a time, so far apart, none while it asks to be left alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

REMEMBERED = 10_000  # hosts; idle ones beyond are forgotten


@dataclass
class _Host:
    slots: asyncio.Semaphore
    users: int = 0
    next_at: float = field(default=0.0)  # the loop's time before which nothing is asked


class Hosts:
    """The limits of every host. slots: requests at a time; delay: seconds from one request to the next."""

    def __init__(self, slots: int, delay: float) -> None:
        self.slots, self.delay = slots, delay
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def turn(self, name: str, delay: float = 0.0) -> AsyncIterator[None]:
        """Wait for a turn at the host; it ends with the context. delay: the host's own, if it is longer."""
        host = self._host(name)
        host.users += 1
        try:
            async with host.slots:
                loop = asyncio.get_running_loop()
                while (wait := host.next_at - loop.time()) > 0:  # may be put off meanwhile
                    await asyncio.sleep(wait)
                host.next_at = loop.time() + max(delay, self.delay)
                yield
        finally:
            host.users -= 1

    def put_off(self, name: str, seconds: float) -> None:
        """Ask the host for nothing in the next seconds."""
        host = self._host(name)
        host.next_at = max(host.next_at, asyncio.get_running_loop().time() + seconds)

    def _host(self, name: str) -> _Host:
        if name not in self._hosts:
            if len(self._hosts) >= REMEMBERED:
                now = asyncio.get_running_loop().time()
                self._hosts = {n: h for n, h in self._hosts.items() if h.users or h.next_at > now}
            self._hosts[name] = _Host(asyncio.Semaphore(self.slots))
        return self._hosts[name]
