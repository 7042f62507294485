"""`Fetcher.fetch(url)`: the bytes of an image, or the reason why there are none."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.corpus.sniffing import FORMATS, describe, image_format
from components.errors import one_line
from components.fetching.http import Client, parse_url
from components.fetching.opt_out import opted_out
from components.fetching.permissions import Permissions
from components.fetching.rejected import DETAIL_CHARACTERS, FetchRejected
from components.fetching.rules import FetchRules

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy
    from yarl import URL

ACCEPT = "image/webp,image/png,image/jpeg,image/*;q=0.5"


@dataclass(frozen=True)
class Fetched:
    """What became of a URL: its image, or why there is none. answered: whether some server was reached,
    None where none was asked.
    """

    image: bytes | None
    rejection: Rejection | None = None
    answered: bool | None = True


class Fetcher:
    """Fetches images within the rules. Used as `async with`, in one event loop."""

    def __init__(self, rules: FetchRules) -> None:
        self.rules = rules
        self.client = Client(rules)
        self.permissions = Permissions(self.client, rules)

    async def __aenter__(self) -> "Fetcher":
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.client.__aexit__(*raised)

    async def fetch(self, url: str | None) -> Fetched:
        """The image at a URL as a list has it; never raises for what a URL, network or server does."""
        try:
            target = parse_url(url)
        except FetchRejected as rejected:
            return Fetched(None, rejected.rejection, answered=None)
        try:
            return Fetched(await self._follow(target))
        except FetchRejected as rejected:
            return Fetched(None, rejected.rejection, rejected.answered)
        except Exception as error:  # noqa: BLE001  one record's end, not the stage's
            detail = f"{type(error).__name__}: {one_line(error, DETAIL_CHARACTERS)}"
            return Fetched(None, FetchRejected(Reason.ERRORED, detail).rejection)

    async def _follow(self, url: "URL") -> bytes:
        """Every address on the way is asked for its permission, and checked, as the first."""
        passed: set[URL] = set()
        while url not in passed:
            passed.add(url)
            delay = await self.permissions.check(url)
            answer = await self.client.get(
                url,
                most=self.rules.max_bytes,
                accept=ACCEPT,
                delay=delay,
                inspect=self._refuse_reserved,
                sniff=_refuse_no_image,
            )
            if answer.redirect is None:
                if answer.status != 200:
                    raise FetchRejected(Reason.FETCH_STATUS, f"HTTP {answer.status}")
                return answer.content
            if len(passed) > self.rules.max_redirects:
                raise FetchRejected(Reason.FETCH_REDIRECT, f"more than {self.rules.max_redirects} times")
            url = answer.redirect
        raise FetchRejected(Reason.FETCH_REDIRECT, "in a loop")

    def _refuse_reserved(self, headers: "CIMultiDictProxy[str]") -> None:
        if (header := opted_out(headers, self.rules)) is not None:
            raise FetchRejected(Reason.FETCH_OPT_OUT, header)


def _refuse_no_image(head: bytes, headers: "CIMultiDictProxy[str]") -> None:
    found = image_format(head)
    if found is None:
        declared = headers.get("Content-Type", "").partition(";")[0].strip()[:60]
        called = f", called {declared}" if declared.startswith("image/") else ""
        raise FetchRejected(Reason.FETCH_NO_IMAGE, f"{describe(head)}{called}")
    if found not in FORMATS:
        raise FetchRejected(Reason.IMAGE_FORMAT, found)
