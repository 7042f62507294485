"""The URLs of a group: each asked for once, whatever rows name it, and what became of it journalled."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.fetching.fetcher import Fetched, Fetcher
from components.fetching.http import parse_url
from components.fetching.journal import Journal
from components.fetching.outage import NetworkLost, Outage
from components.fetching.rejected import FetchRejected


@dataclass
class WantedUrl:
    """A URL and the rows of the group that name it. repeated: those with an alt text of another."""

    url: str | None
    host: str
    rows: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)


def wanted_urls(urls: Sequence[str | None], alt_texts: Sequence[str | None]) -> list[WantedUrl]:
    """The different URLs, in order of their first rows. Two that differ in their fragments are one."""
    wanted: dict[str | int, WantedUrl] = {}
    seen: set[tuple[str | int, str | None]] = set()
    for row, (url, alt_text) in enumerate(zip(urls, alt_texts, strict=True)):
        key: str | int
        try:
            parsed = parse_url(url)
            key, host = str(parsed), parsed.host or ""
        except FetchRejected:
            key, host = row, ""  # of what cannot be asked for every row is rejected for itself
        one = wanted.setdefault(key, WantedUrl(url, host))
        (one.repeated if (key, alt_text) in seen else one.rows).append(row)
        seen.add((key, alt_text))
    return list(wanted.values())


async def fetch_all(
    fetcher: Fetcher,
    wanted: Sequence[WantedUrl],
    journal: Journal,
    outage: Outage,
    on_done: Callable[[WantedUrl, Fetched], None],
) -> None:
    """Ask for those that the journal does not have. Raises NetworkLost, and leaves what was not answered."""
    done = journal.numbers()
    numbers = [number for number in range(len(wanted)) if number not in done]
    await run_all(_fetch_one(fetcher, number, wanted[number], journal, outage, on_done) for number in numbers)


async def run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run them side by side; the first error ends them all and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def _fetch_one(
    fetcher: Fetcher,
    number: int,
    wanted: WantedUrl,
    journal: Journal,
    outage: Outage,
    on_done: Callable[[WantedUrl, Fetched], None],
) -> None:
    with outage.counted():
        fetched = await fetcher.fetch(wanted.url)
        await outage.settled(wanted.host, fetched)
    journal.add(number, fetched)
    on_done(wanted, fetched)


__all__ = ["NetworkLost", "WantedUrl", "fetch_all", "run_all", "wanted_urls"]
