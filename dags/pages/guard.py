"""The guard before Dagster's and MLflow's pages: whoever drives them can run code.

Neither page knows who asks: Dagster's even takes mutations by GET, from any web page that is open in the same
browser. So before both of them stands this ASGI application. It wants

- a Host that is this machine's loopback, against DNS rebinding;
- no Origin, or the page's own, against other pages of the browser, for websockets too;
- no query in the address of a GraphQL request, so that nothing is changed by GET;
- a token. The address that `straightshot ui` prints has it; opening that address changes it into a cookie
  (HttpOnly, SameSite=Strict), and it leaves the address. Programs send it as `Authorization: Bearer`.

What it is no protection against: another program of the same user, who can read the token.
"""

import hashlib
import os
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

TOKEN_VARIABLE = "STRAIGHTSHOT_UI_TOKEN"  # how the servers get it from `straightshot ui`
TOKEN_PARAMETER = "token"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
POLICY_VIOLATION = 1008  # a websocket's closing code
READING = ("GET", "HEAD")


def new_token() -> str:
    """256 random bits, as an address takes them."""
    return secrets.token_urlsafe(32)


def bearer(token: str) -> dict[str, str]:
    """The header by which a program shows the token."""
    return {"Authorization": f"Bearer {token}"}


def guarded(app: ASGIApp) -> "Guard":
    """The application behind the guard, with the token that TOKEN_VARIABLE holds."""
    return Guard(app, os.environ[TOKEN_VARIABLE])


class Guard:
    """An ASGI application that passes on what the token's owner asks for.

    Several guards with one token share one cookie, so that the links between their pages work.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self._token = token.encode()
        self.cookie = f"straightshot-{hashlib.sha256(self._token).hexdigest()[:12]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        answer = _refusal(connection) or self._entry(connection)
        if answer is None:
            await self.app(scope, receive, _unframed(send))
        elif scope["type"] == "websocket":
            await WebSocketClose(POLICY_VIOLATION)(scope, receive, send)
        else:
            await answer(scope, receive, send)

    def _entry(self, connection: HTTPConnection) -> Response | None:
        """None where the token was shown; else a cookie for the token in the address, or a refusal."""
        given = connection.query_params.get(TOKEN_PARAMETER)
        if given is not None and connection.scope.get("method") in READING and self._is_token(given):
            entry = RedirectResponse(connection.url.remove_query_params(TOKEN_PARAMETER), status_code=303)
            entry.set_cookie(self.cookie, given, httponly=True, samesite="strict", path="/")
            entry.headers["Cache-Control"] = "no-store"
            return entry
        scheme, _, bearer = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer.strip()):
            return None
        if self._is_token(connection.cookies.get(self.cookie, "")):
            return None
        return _refused(
            401, "open the address that `straightshot ui` printed: it has the token for this page"
        )

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token)


def _refusal(connection: HTTPConnection) -> Response | None:
    """The answer to a request that no page of ours makes; None for any other."""
    host, origin = connection.headers.get("host", ""), connection.headers.get("origin")
    if _name(host) not in LOOPBACK_NAMES:
        return _refused(403, "this page answers to 127.0.0.1 and localhost only")
    if origin is not None and origin != f"http://{host}":
        return _refused(403, "another page may not ask this one for anything")
    is_graphql = connection.scope["path"].rstrip("/").endswith("/graphql")
    if is_graphql and connection.scope.get("method") in READING and connection.url.query:
        return _refused(405, "send a query by POST")
    return None


def _name(host: str) -> str | None:
    """The name in a Host header; None where it has none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _refused(status: int, text: str) -> Response:
    return PlainTextResponse(f"straightshot: {text}\n", status_code=status)


def _unframed(send: Send) -> Send:
    """Have every answer say that no foreign page may show it in a frame."""

    async def send_with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).setdefault("X-Frame-Options", "SAMEORIGIN")
        await send(message)

    return send_with_header
