"""The server as an ASGI application: its routes and what they answer.

    GET  /                        the page
    GET  /health                  200 while it can answer: model, what waits
    GET  /v1/models               the model that is served, and its card
    POST /v1/images/generations   images of prompts, in the form of OpenAI's images API

An error is JSON with one line: 400 no JSON, 401 no token, 403 a foreign Host or Origin, 413 too large, 422 a
value out of range, 503 too much is waiting (with Retry-After), 504 it took too long.
"""

import asyncio
import base64
import math
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from components.provenance.png import PngWriter
from pipelines.serving.batcher import Batcher, QueueFull
from pipelines.serving.guard import Guard, error_response
from pipelines.serving.requests import BadRequest, read_request, work_of
from pipelines.serving.served_models import CurrentModel, LoadedModel, ModelSource
from pipelines.serving.settings import ServerConfig
from pipelines.serving.work import GeneratedImages, Work

HERE = Path(__file__).parent
CONTENT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'self'; script-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
CLIENT_LEFT = 499  # as web servers log it; nobody reads the answer


class ImageServer:
    """One model, its batcher and its routes. Loads the model; `app` starts and ends the rest."""

    def __init__(self, source: ModelSource, config: ServerConfig, writer: PngWriter) -> None:
        self.config, self.writer, limits = config, writer, config.limits
        self.batcher = Batcher(limits.waiting_requests, limits.waiting_evaluations, config.batch_images)
        self.current = CurrentModel(source, config.poll_seconds, self.batcher.watch)
        self.encoders = ThreadPoolExecutor(1, "encoder")  # beside the next batch; see tests/benchmarks

    def app(self) -> Starlette:
        routes = [
            Route("/", _file("page.html")),
            Route("/page.css", _file("page.css")),
            Route("/page.js", _file("page.js")),
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/images/generations", self.generations, methods=["POST"]),
        ]
        return Starlette(
            routes=routes,
            middleware=[Middleware(Guard, config=self.config)],
            exception_handlers={HTTPException: _http_error, Exception: _unexpected_error},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self.close()

    def close(self) -> None:
        self.current.close()
        self.batcher.close()
        self.encoders.shutdown()

    async def health(self, request: Request) -> Response:
        requests, evaluations = self.batcher.waiting()
        is_running = self.batcher.is_running
        state = {
            "status": "ok" if is_running else "failed",
            "model": self.current.loaded.label,
            "waiting": {"requests": requests, "network_evaluations": evaluations},
            "problem": self.current.problem,
        }
        return JSONResponse(state, 200 if is_running else 503)

    async def models(self, request: Request) -> Response:
        loaded = self.current.loaded
        entry = {"id": loaded.label, "object": "model", "owned_by": "straightshot", "card": loaded.card}
        return JSONResponse({"object": "list", "data": [entry], "limits": self.config.limits.model_dump()})

    async def generations(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return error_response(400, "send JSON: Content-Type: application/json")
        loaded = self.current.loaded
        try:
            body = await _body(request, self.config.limits.body_bytes)
            work, seed = work_of(read_request(body), loaded.generator, self.config.limits)
            self.batcher.submit(work)
        except BadRequest as error:
            return error_response(error.status, str(error))
        except QueueFull as error:
            return error_response(503, str(error), {"retry-after": str(math.ceil(error.retry_after))})
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)
        return await self._answer(request, work, loaded, seed)

    async def _answer(self, request: Request, work: Work, loaded: LoadedModel, seed: int) -> Response:
        """Wait for the images; give up the work on time-out, and when the client has left."""
        images = asyncio.wrap_future(work.answer)
        left = asyncio.ensure_future(_disconnected(request))
        seconds = self.config.limits.seconds
        try:
            await asyncio.wait((images, left), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if images.done():
                encode = partial(self._document, work, images.result(), loaded, seed)
                return JSONResponse(await asyncio.get_running_loop().run_in_executor(self.encoders, encode))
            if left.done():
                return Response(status_code=CLIENT_LEFT)
            return error_response(504, f"not done after {seconds:g} s; ask for fewer images or steps")
        finally:
            left.cancel()
            images.cancel()  # and with it work.answer: its place in the batch is free

    def _document(
        self, work: Work, images: GeneratedImages, loaded: LoadedModel, seed: int
    ) -> dict[str, Any]:
        """The answer's document; each image a PNG with its texts, in base64."""
        from PIL import Image

        data = []
        for number, (pixels, prompt) in enumerate(zip(images.pixels, images.prompts, strict=True)):
            texts = {"prompt": prompt.prompt, "caption": prompt.caption, "upsampling": prompt.how}
            texts |= {"model": loaded.label, "seed": str(seed), "number": str(number)}
            png = self.writer.encode(Image.fromarray(pixels), texts, loaded.label)
            image = {"b64_json": base64.b64encode(png).decode("ascii"), "revised_prompt": prompt.caption}
            data.append(image | {"prompt": prompt.prompt, "upsampling": prompt.how})
        settings = {"model": loaded.label, "seed": seed, "steps": work.steps, "guidance_scale": work.guidance}
        return {"created": int(time.time()), **settings, "data": data}


async def _body(request: Request, most: int) -> bytes:
    """The request's body. Raises BadRequest 413 as soon as it is longer than `most` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise BadRequest(f"the body is too large; at most {most} bytes", 413)
    return bytes(body)


async def _disconnected(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _file(name: str) -> Any:
    async def endpoint(request: Request) -> Response:
        return FileResponse(HERE / name, headers=PAGE_HEADERS)

    return endpoint


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors, in the form of ours."""
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, f"{request.url.path}: {error.detail}", dict(error.headers or {}))


async def _unexpected_error(request: Request, error: Exception) -> Response:
    return error_response(500, "an unexpected error, see the server's log; the server goes on")
