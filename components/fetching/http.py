"""One HTTP request: no redirect followed, sizes capped while they stream, every failure with its reason."""

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from components.corpus.schemas import Reason
from components.errors import one_line
from components.fetching.addresses import AddressPolicy, AddressRefused, guarded_connector
from components.fetching.hosts import Hosts
from components.fetching.rejected import DETAIL_CHARACTERS, FetchRejected
from components.fetching.rules import FetchRules

if TYPE_CHECKING:
    import aiohttp
    from multidict import CIMultiDictProxy
    from yarl import URL

CHUNK = 64 * 1024  # bytes
MOST_URL_CHARACTERS = 8192
SCHEMES = ("http", "https")
NOT_IN_HOSTS = "%\\<>^`{|}"
REDIRECTS = (301, 302, 303, 307, 308)
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be another the next time
TOO_BUSY = (429, 503)  # those by which a server asks to be left alone for a while
INFLATED = {"gzip": 47, "x-gzip": 47, "deflate": 47}  # content encodings -> zlib's wbits: either header


@dataclass(frozen=True)
class Answer:
    """A response. redirect: where it sends on to. content: the body, of a success only."""

    status: int
    headers: "CIMultiDictProxy[str]"
    redirect: "URL | None" = None
    content: bytes = b""


# Called with the response's headers before the body is read; raises FetchRejected to leave it.
Inspect = Callable[["CIMultiDictProxy[str]"], None]
# Called once with the first bytes of the body; likewise.
Sniff = Callable[[bytes, "CIMultiDictProxy[str]"], None]


def parse_url(text: str | None, base: "URL | None" = None) -> "URL":
    """An absolute http or https URL, without its fragment. Raises FetchRejected for any other."""
    from yarl import URL

    if not text or not text.strip():
        raise FetchRejected(Reason.FETCH_URL, "no URL")
    if len(text) > MOST_URL_CHARACTERS:
        raise FetchRejected(Reason.FETCH_URL, f"{len(text):,} characters")
    try:
        url = URL(text.strip())
        url = base.join(url) if base is not None else url
        scheme, host = url.scheme.lower(), url.host
        url.port  # noqa: B018  raises for one that is none
    except ValueError as error:
        raise FetchRejected(Reason.FETCH_URL, one_line(error, DETAIL_CHARACTERS)) from error
    if scheme not in SCHEMES:
        what = f"{scheme[:20]}: is not fetched" if scheme else "no http:// or https:// URL"
        raise FetchRejected(Reason.FETCH_URL, what)
    if not host or any(letter.isspace() or letter in NOT_IN_HOSTS for letter in host):
        raise FetchRejected(Reason.FETCH_URL, "no name of a host" if host else "no host")
    if url.user is not None or url.password is not None:
        raise FetchRejected(Reason.FETCH_URL, "it carries a user name")
    return url.with_fragment(None)


class Client:
    """HTTP with limits for all and for each host. Used as `async with`."""

    def __init__(self, rules: FetchRules) -> None:
        self.rules = rules
        self.hosts = Hosts(rules.connections_per_host, rules.host_delay)
        self._connections = asyncio.Semaphore(rules.connections)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Client":
        import aiohttp

        rules = self.rules
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(AddressPolicy(rules.allow_networks)),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": rules.user_agent, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(
                total=rules.total_timeout, sock_connect=rules.connect_timeout, sock_read=rules.read_timeout
            ),
            auto_decompress=False,  # here, with a limit
        )
        return self

    async def __aexit__(self, *raised: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(
        self,
        url: "URL",
        *,
        most: int,
        accept: str = "*/*",
        delay: float = 0.0,
        inspect: Inspect | None = None,
        sniff: Sniff | None = None,
        cut: bool = False,
    ) -> Answer:
        """Ask for a URL, again where that may help. most: bytes of the body; cut: what is beyond is left.

        Raises FetchRejected where there is no answer, and for a body that is too large or cut off. A status
        that is no success is an Answer, but for those that may pass, after the last try.
        """
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        rules = self.rules
        backoff = wait_random_exponential(rules.backoff, rules.max_backoff)

        def wait(state: Any) -> float:
            error = state.outcome.exception()
            return max(backoff(state), error.wait if isinstance(error, FetchRejected) else 0.0)

        def worth_it(error: BaseException) -> bool:
            return isinstance(error, FetchRejected) and error.again and error.wait <= rules.max_backoff

        retrying = AsyncRetrying(
            stop=stop_after_attempt(rules.tries), wait=wait, retry=retry_if_exception(worth_it), reraise=True
        )
        answer: Answer = await retrying(
            self._get, url, most=most, accept=accept, delay=delay, inspect=inspect, sniff=sniff, cut=cut
        )
        return answer

    async def _get(
        self,
        url: "URL",
        *,
        most: int,
        accept: str,
        delay: float,
        inspect: Inspect | None,
        sniff: Sniff | None,
        cut: bool,
    ) -> Answer:
        assert self._session is not None and url.host is not None
        async with (
            self.hosts.turn(url.host, delay),
            self._connections,
            _reasons(),
            self._session.get(url, allow_redirects=False, headers={"Accept": accept}) as response,
        ):
            if response.status in REDIRECTS:
                return Answer(response.status, response.headers, redirect=_target(url, response.headers))
            if response.status in PASSING:
                raise self._passing(url.host, response)
            if response.status != 200:
                return Answer(response.status, response.headers)
            if inspect is not None:
                inspect(response.headers)
            content = await _read(response, most, sniff, cut=cut)
            return Answer(response.status, response.headers, content=content)

    def _passing(self, host: str, response: "aiohttp.ClientResponse") -> FetchRejected:
        """A status that may pass; a host that is too busy is asked for nothing else meanwhile, either."""
        wait = _retry_after(response.headers.get("Retry-After"))
        asked = f", to be asked again in {wait:,.0f} s" if wait > self.rules.max_backoff else ""
        if response.status in TOO_BUSY and wait:
            self.hosts.put_off(host, min(wait, self.rules.max_backoff))
        return FetchRejected(Reason.FETCH_STATUS, f"HTTP {response.status}{asked}", again=True, wait=wait)


def _target(url: "URL", headers: "CIMultiDictProxy[str]") -> "URL":
    """Where a redirect leads. Raises FetchRejected where that is nowhere."""
    location = headers.get("Location")
    if not location:
        raise FetchRejected(Reason.FETCH_REDIRECT, "it names no target")
    try:
        return parse_url(location, url)
    except FetchRejected as rejected:
        raise FetchRejected(Reason.FETCH_REDIRECT, f"to {rejected.rejection.detail}") from rejected


def _retry_after(value: str | None) -> float:
    """Seconds until a server wants to be asked again, from its Retry-After: a number, or a date."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return 0.0
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


async def _read(response: "aiohttp.ClientResponse", most: int, sniff: Sniff | None, *, cut: bool) -> bytes:
    """The body, decompressed; never more than `most` bytes of it are held. Raises FetchRejected."""
    from components.corpus.sniffing import SNIFFED

    if not cut and response.content_length is not None and response.content_length > most:
        raise _too_large(f"{response.content_length:,} bytes announced", most)
    inflate = _decompressor(response.headers.get("Content-Encoding", ""))
    body = bytearray()
    received, sniffed = 0, sniff is None
    async for chunk in response.content.iter_chunked(CHUNK):
        received += len(chunk)
        body += inflate(chunk, most + 1 - len(body))
        if not sniffed and len(body) >= SNIFFED:
            assert sniff is not None
            sniff(bytes(body[:SNIFFED]), response.headers)
            sniffed = True
        if len(body) > most or received > most:
            if cut:
                return bytes(body[:most])
            raise _too_large("more", most)
    if sniff is not None and not sniffed:
        sniff(bytes(body[:SNIFFED]), response.headers)
    return bytes(body)


def _too_large(what: str, most: int) -> FetchRejected:
    return FetchRejected(Reason.FETCH_TOO_LARGE, f"{what}, at most {most:,}")


def _decompressor(encoding: str) -> Callable[[bytes, int], bytes]:
    """chunk, most bytes -> what it is decompressed, no more than that. Raises FetchRejected for an encoding
    that was not asked for and is not read.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return lambda chunk, most: chunk
    if name not in INFLATED:
        raise FetchRejected(Reason.FETCH_BROKEN, f"Content-Encoding: {name[:40]} was not asked for")
    stream = zlib.decompressobj(INFLATED[name])
    return lambda chunk, most: stream.decompress(chunk, max(most, 1))


@asynccontextmanager
async def _reasons() -> AsyncIterator[None]:
    """What goes wrong with a connection or a body, as FetchRejected."""
    import aiohttp

    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        text = one_line(error.certificate_error, DETAIL_CHARACTERS)
        raise FetchRejected(Reason.FETCH_UNREACHABLE, f"TLS: {text}") from error
    except aiohttp.ClientConnectorSSLError as error:
        text = one_line(error.os_error, DETAIL_CHARACTERS)
        raise FetchRejected(Reason.FETCH_UNREACHABLE, f"TLS: {text}") from error
    except (aiohttp.ClientConnectorError, AddressRefused) as error:
        raise _unconnected(error) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise FetchRejected(
            Reason.FETCH_TIMEOUT, "no connection in time", answered=False, again=True
        ) from error
    except TimeoutError as error:
        raise FetchRejected(Reason.FETCH_TIMEOUT, "no whole answer in time", again=True) from error
    except UnicodeError as error:
        raise FetchRejected(Reason.FETCH_URL, "no name of a host") from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise FetchRejected(Reason.FETCH_URL, one_line(error, DETAIL_CHARACTERS)) from error
    except (
        aiohttp.ClientPayloadError,
        aiohttp.ClientResponseError,
        aiohttp.ServerDisconnectedError,
    ) as error:
        raise FetchRejected(Reason.FETCH_BROKEN, _broken(error), again=True) from error
    except (aiohttp.ClientError, OSError) as error:
        text = one_line(getattr(error, "strerror", None) or error, DETAIL_CHARACTERS)
        raise FetchRejected(Reason.FETCH_BROKEN, text, again=True) from error
    except zlib.error as error:
        raise FetchRejected(Reason.FETCH_BROKEN, f"damaged compression: {error}") from error


def _unconnected(error: Exception) -> FetchRejected:
    """A connection that was not made: of an address that may not be reached, or that does not answer."""
    import socket

    import aiohttp

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, AddressRefused):
        cause = getattr(cause, "os_error", None) or cause.__cause__
    if cause is not None:
        return FetchRejected(Reason.FETCH_ADDRESS, one_line(cause, DETAIL_CHARACTERS))
    os_error = getattr(error, "os_error", error)
    number = getattr(os_error, "errno", None) or 0  # asyncio's own words have the port in them
    words = os.strerror(number) if number > 0 else getattr(os_error, "strerror", None)
    text = one_line(words or os_error, DETAIL_CHARACTERS)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        final = getattr(os_error.__cause__ or os_error, "errno", None) == socket.EAI_NONAME
        detail = f"its name is not resolved: {text}"
        return FetchRejected(Reason.FETCH_UNREACHABLE, detail, answered=False, again=not final)
    return FetchRejected(Reason.FETCH_UNREACHABLE, text, answered=False, again=True)


def _broken(error: Exception) -> str:
    """In words that are the same each time: the library's have a piece of the body in them."""
    import aiohttp

    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closes the connection without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "its body is not as long as announced"
    message = str(getattr(error, "message", "")).strip().partition("\n")[0].partition(": b")[0].rstrip(":")
    return f"no HTTP: {one_line(message or error, DETAIL_CHARACTERS)}"
