"""What an origin permits: its robots.txt (RFC 9309, by protego) and its TDMRep file, asked for once each."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from components.corpus.schemas import Reason
from components.fetching.http import Answer, Client
from components.fetching.opt_out import Reservations, read_tdmrep
from components.fetching.rejected import FetchRejected
from components.fetching.rules import FetchRules

if TYPE_CHECKING:
    from yarl import URL

T = TypeVar("T")

ROBOTS, TDMREP = "/robots.txt", "/.well-known/tdmrep.json"
MOST_BYTES = 512 * 1024  # of either file that are read; RFC 9309 asks for 500 KiB of robots.txt
MOST_REDIRECTS = 5  # RFC 9309
REMEMBERED = 4096  # origins


@dataclass(frozen=True)
class Robots:
    """An origin's robots.txt. parsed: None where there is none, so that all is permitted."""

    parsed: Any = None

    def permit(self, url: "URL", agents: tuple[str, ...]) -> bool:
        return self.parsed is None or all(self.parsed.can_fetch(str(url), agent) for agent in agents)

    def delay(self, agents: tuple[str, ...]) -> float:
        """The longest Crawl-delay, seconds; 0 where there is none."""
        delays = [self.parsed.crawl_delay(agent) for agent in agents] if self.parsed is not None else []
        return max((float(delay) for delay in delays if delay), default=0.0)


class Permissions:
    """Asks every origin once, and remembers the newest of them."""

    def __init__(self, client: Client, rules: FetchRules) -> None:
        self.client, self.rules = client, rules
        self._asked: dict[tuple[str, str], asyncio.Task[Any]] = {}

    async def check(self, url: "URL") -> float:
        """The delay that the origin wants between two requests, seconds. Raises FetchRejected where it does
        not permit this one, or cannot be reached.
        """
        robots = Robots()
        if self.rules.robots:
            robots = await self._once(ROBOTS, url, self._robots)
            if not robots.permit(url, self.rules.agents):
                raise FetchRejected(Reason.FETCH_ROBOTS, "by robots.txt")
        if self.rules.tdmrep:
            reservations = await self._once(TDMREP, url, self._reservations)
            if reservations.reserve(url.raw_path_qs):
                raise FetchRejected(Reason.FETCH_OPT_OUT, TDMREP.rpartition("/")[2])
        return min(robots.delay(self.rules.agents), self.rules.max_crawl_delay)

    async def _once(self, path: str, url: "URL", ask: Callable[["URL"], Awaitable[T]]) -> T:
        origin = url.origin()
        key = (path, str(origin))
        if key not in self._asked:
            if len(self._asked) >= 2 * REMEMBERED:
                del self._asked[next(iter(self._asked))]
            self._asked[key] = asyncio.ensure_future(ask(origin.with_path(path)))
        try:
            return await asyncio.shield(self._asked[key])
        except FetchRejected as rejected:
            if not rejected.answered:  # a network that is away for a moment is not remembered
                self._asked.pop(key, None)
            raise

    async def _robots(self, url: "URL") -> Robots:
        """RFC 9309, 2.3.1: none where the server has none, everything forbidden where it cannot say."""
        from protego import Protego

        try:
            answer = await self._file(url)
        except FetchRejected as rejected:
            why = rejected.rejection
            if why.reason is Reason.FETCH_STATUS:  # 429 and 5xx
                raise FetchRejected(Reason.FETCH_ROBOTS, f"robots.txt: {why.detail}") from rejected
            if why.reason is Reason.FETCH_REDIRECT:
                return Robots()
            raise FetchRejected(
                why.reason, f"robots.txt: {why.detail}", answered=rejected.answered
            ) from rejected
        if answer.status != 200:
            return Robots()
        return Robots(Protego.parse(answer.content.decode("utf-8", "replace")))

    async def _reservations(self, url: "URL") -> Reservations:
        try:
            answer = await self._file(url)
        except FetchRejected:
            return Reservations()
        return read_tdmrep(answer.content) if answer.status == 200 else Reservations()

    async def _file(self, url: "URL") -> Answer:
        for _ in range(1 + MOST_REDIRECTS):
            answer = await self.client.get(url, most=MOST_BYTES, cut=True)
            if answer.redirect is None:
                return answer
            url = answer.redirect
        raise FetchRejected(Reason.FETCH_REDIRECT, f"more than {MOST_REDIRECTS} times")
