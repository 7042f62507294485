"""A vision server on loopback with OpenAI's API, which also misbehaves as real ones do."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220), "white": (250, 250, 250)}
Reply = dict[str, Any] | bytes | int | tuple[int, dict[str, Any]]


def colour_of(image: Image.Image) -> str:
    """The name of the colour that an image is nearest to."""
    pixel = image.resize((1, 1)).getpixel((0, 0))
    return min(COLOURS, key=lambda name: sum(abs(a - b) for a, b in zip(COLOURS[name], pixel, strict=True)))


def completion(text: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion as OpenAI's API has it."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, **message},
    }
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


class VisionServer(ThreadingHTTPServer):
    """answer: (image, prompt, request body) -> what to reply:

    a completion; bytes, sent as they are; a status with an error's body; seconds to be silent for, as an int.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[Image.Image, str, dict[str, Any]], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.begun: list[float] = []  # when each request came, in monotonic seconds
        self.keys: set[str] = set()  # that clients sent
        self.under_way = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def running(answer: Callable[[Image.Image, str, dict[str, Any]], Reply]) -> Iterator[VisionServer]:
    """A server that runs within the block."""
    server = VisionServer(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: VisionServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200, json.dumps({"object": "list", "data": [{"id": "small", "object": "model"}]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.begun.append(time.monotonic())
            self.server.keys.add(self.headers["Authorization"])
            self.server.under_way += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.under_way)
        reply = self._answer(body)
        with self.server.lock:
            self.server.under_way -= 1
        self._reply(reply)

    def _answer(self, body: dict[str, Any]) -> Reply:
        image_part, text_part = body["messages"][0]["content"]
        data = base64.b64decode(image_part["image_url"]["url"].partition(",")[2])
        return self.server.answer(Image.open(io.BytesIO(data)).convert("RGB"), text_part["text"], body)

    def _reply(self, reply: Reply) -> None:
        match reply:
            case int():
                time.sleep(reply)
                self.close_connection = True
            case bytes():
                self._send(200, reply, promised=len(reply) + 100 * reply.endswith(b"cut"))
            case dict():
                self._send(200, json.dumps(reply).encode())
            case (status, error):
                headers = error.pop("headers", {})
                self._send(status, json.dumps({"error": error}).encode(), **headers)

    def _send(self, status: int, content: bytes, promised: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content) if promised is None else promised))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = promised is not None and promised > len(content)
