"""Who may drive the server: checked before anything else of a request.

A web page from elsewhere can make a browser on this machine send requests here. It cannot hide its Origin,
nor send JSON without asking first, nor use another Host than its own name; so Host and Origin are checked,
and where others reach the port a token is asked for.
"""

import secrets
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.serving.settings import ServerConfig

OPEN_PATHS = ("/", "/page.css", "/page.js", "/health")  # without a token: they do nothing and tell nothing


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as OpenAI's clients read it: one line and a kind."""
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status, headers)


class Guard:
    """ASGI middleware that answers 401 or 403 to those who may not."""

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self.app, self.config = app, config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            refusal = self._foreign(headers) or self._without_token(headers, scope["path"])
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _foreign(self, headers: Headers) -> JSONResponse | None:
        """Refuses another name than this server's, and what a page from elsewhere sent."""
        host = headers.get("host", "").lower()
        names = self.config.host_names
        if names and _name(host) not in names:
            return error_response(403, f"this server is not called '{host}'; name it with --allow-host")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            return error_response(403, f"requests from pages of {origin} are refused")
        return None

    def _without_token(self, headers: Headers, path: str) -> JSONResponse | None:
        if self.config.token is None or path in OPEN_PATHS:
            return None
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if secrets.compare_digest(given, self.config.token.encode()):
            return None
        message = "send the server's token: Authorization: Bearer TOKEN"
        return error_response(401, message, {"www-authenticate": "Bearer"})


def _name(host: str) -> str:
    """A Host header without its port; an IPv6 address keeps its brackets."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host
