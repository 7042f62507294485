"""A real HTTP server on loopback that misbehaves in every way that the web does, by path.

It speaks raw bytes, since a library's server would not lie. Every site has a port, and so an origin, of its
own. `asked` has the path of every request in order of arrival.
"""

import asyncio
import gzip
import io
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image

MIB = 2**20


def png(colour: int = 0, side: int = 48) -> bytes:
    """A PNG with some content, different for each colour."""
    image = Image.new("RGB", (side, side), (colour * 37 % 256, 80, 160))
    image.paste((250, colour % 256, 20), (8, 8, 30, 20 + colour % 20))
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


PNG = png()
BOMB = gzip.compress(PNG + bytes(32 * MIB))  # 32 MiB in some 32 kB
TAGS = {  # path -> the lines of a response's headers
    "everyone": ["X-Robots-Tag: noai"],
    "case": ["x-robots-tag: NoImageAI"],
    "list": ["X-Robots-Tag: nofollow, noindex"],
    "several": ["X-Robots-Tag: nofollow", "X-Robots-Tag: noimageai"],
    "agent": ["X-Robots-Tag: straightshot: noai"],
    "agent-later": ["X-Robots-Tag: otherbot: nofollow, Straightshot: nofollow, noai"],
    "none": ["X-Robots-Tag: none"],
    "expired": ["X-Robots-Tag: unavailable_after: Friday, 25-Jun-10 15:00:00 GMT"],
    "tdm": ["TDM-Reservation: 1", "TDM-Policy: https://example.com/policy"],
    "usage": ["Content-Usage: search=y, train-ai=n"],
    "other-agent": ["X-Robots-Tag: otherbot: noai, noindex"],
    "harmless": ["X-Robots-Tag: nofollow, max-snippet: 20, unavailable_after: 1 Jan 2999 00:00:00 GMT"],
    "tdm-free": ["TDM-Reservation: 0"],
}


class Site:
    """One origin: its base URL, its robots.txt and tdmrep.json (a status or a text), its requests."""

    def __init__(self, robots: str | int, tdmrep: str | int) -> None:
        self.files = {"/robots.txt": robots, "/.well-known/tdmrep.json": tdmrep}
        self.url = ""
        self.asked: list[str] = []
        self.at_once = self.most_at_once = self.connections = 0

    def times(self, path: str) -> int:
        return Counter(self.asked)[path]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            first = await reader.readexactly(1)
            if first == b"\x16":  # TLS, which a plain server does not speak
                _send(writer, 400)
                writer.close()
                return
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split()[1]
            self.asked.append(path)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                await self._respond(path, writer)
            finally:
                self.at_once -= 1
        with suppress(ConnectionError, asyncio.CancelledError):
            writer.close()

    async def _respond(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path in self.files:
            content = self.files[path]
            if isinstance(content, int):
                return _send(writer, content)
            return _send(writer, 200, content.encode())
        name, _, argument = path.strip("/").partition("/")
        respond = RESPONSES.get(name)
        if respond is not None:
            return _send(writer, *respond(argument, self.times(path)))
        await MISBEHAVIOURS[name](argument, writer)


def _send(
    writer: asyncio.StreamWriter, status: int, body: bytes = b"", *headers: str, length: int | None = None
) -> None:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}"]
    writer.write(
        "\r\n".join([*lines, "Connection: close", *headers, "", ""]).encode("utf-8", "surrogateescape") + body
    )


def _flaky(argument: str, times: int) -> tuple:
    return (200, PNG) if times > int(argument) else (503, b"")


def _busy(argument: str, times: int) -> tuple:
    return (200, PNG) if times > 1 else (429, b"", f"Retry-After: {argument}")


def _hops(argument: str, times: int) -> tuple:
    left = int(argument)
    return (302, b"", f"Location: /hops/{left - 1}") if left else (200, PNG)


# name -> (argument of the path, how often it was asked for) -> status, body, headers
RESPONSES: dict[str, Callable[[str, int], tuple]] = {
    "image": lambda number, _: (200, png(int(number or 0))),
    "mislabelled": lambda *_: (200, PNG, "Content-Type: text/html"),
    "html": lambda *_: (200, b"\n<!DOCTYPE html><p>login</p>", "Content-Type: image/jpeg"),
    "svg": lambda *_: (200, b"<?xml version='1.0'?><svg/>", "Content-Type: image/svg+xml"),
    "bad-header": lambda *_: (200, b"<html>", "Content-Type: image/\udcff\udcfe"),
    "empty": lambda *_: (200, b""),
    "gif": lambda *_: (200, b"GIF89a" + bytes(100)),
    "status": lambda status, _: (int(status), b"" if status == "204" else b"gone"),
    "flaky": _flaky,
    "busy": _busy,
    "hops": _hops,
    "to": lambda target, _: (302, b"", f"Location: {bytes.fromhex(target).decode()}"),
    "nowhere": lambda *_: (301, b""),
    "loop": lambda side, _: (307, b"", f"Location: /loop/{'b' if side == 'a' else 'a'}"),
    "tag": lambda name, _: (200, PNG, *TAGS[name]),
    "gzip": lambda *_: (200, gzip.compress(PNG), "Content-Encoding: gzip"),
    "bomb": lambda *_: (200, BOMB, "Content-Encoding: gzip"),
    "damaged-gzip": lambda *_: (200, b"\x1f\x8b\x08 not gzip at all", "Content-Encoding: gzip"),
    "brotli": lambda *_: (200, b"???", "Content-Encoding: br"),
    "many-headers": lambda *_: (200, PNG, f"X-Long: {'x' * 100_000}"),
}


async def _slow_body(argument: str, writer: asyncio.StreamWriter) -> None:
    _send(writer, 200, PNG[:20], length=len(PNG))
    for byte in PNG[20:]:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.03)


async def _slow_head(argument: str, writer: asyncio.StreamWriter) -> None:
    for letter in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000:
        writer.write(bytes([letter]))
        await writer.drain()
        await asyncio.sleep(0.03)


async def _silent(argument: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def _endless(argument: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = PNG + bytes(MIB // 4)
    while True:
        writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        await writer.drain()


async def _announced(argument: str, writer: asyncio.StreamWriter) -> None:
    _send(writer, 200, PNG, length=int(argument))
    await writer.drain()


async def _reset(argument: str, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _garbage(argument: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 smtp.example.com ESMTP\r\n\r\n")


MISBEHAVIOURS = {
    "slow-body": _slow_body,
    "slow-head": _slow_head,
    "silent": _silent,
    "endless": _endless,
    "announced": _announced,  # that many bytes, whatever is sent
    "reset": _reset,
    "garbage": _garbage,
}


class Server:
    """Sites in a thread of their own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.servers: list[asyncio.Server] = []

    def site(
        self,
        robots: str | int = 404,
        tdmrep: str | int = 404,
        *,
        host: str = "127.0.0.1",
        certificate: Path | None = None,
    ) -> Site:
        """A new origin. host: of 127.0.0.0/8. certificate: PEM of a key and certificate, for https."""
        site, context = Site(robots, tdmrep), None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        started = asyncio.start_server(site.answer, host, 0, ssl=context)
        server = asyncio.run_coroutine_threadsafe(started, self.loop).result(10)
        self.servers.append(server)
        scheme = "https" if context else "http"
        site.url = f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}"
        return site


@contextmanager
def serving() -> Iterator[Server]:
    """A server without sites, until the context ends."""
    server = Server()
    server.thread.start()
    try:
        yield server
    finally:
        for one in server.servers:
            server.loop.call_soon_threadsafe(one.close)
        server.loop.call_soon_threadsafe(server.loop.stop)
        server.thread.join(10)
