"""The server over HTTP: what it answers, what it refuses, and that a promotion fails no request."""

import base64
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import uvicorn
from PIL import Image

from components.generation.generator import Generator
from components.provenance.credentials import find_credentials
from components.provenance.png import png_writer
from components.provenance.verification import examine
from pipelines.errors import ConfigError
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import Registry
from pipelines.serving.app import HERE, ImageServer
from pipelines.serving.served_models import ModelSource
from pipelines.serving.server import run_server
from pipelines.serving.settings import Limits, ServerConfig
from tests.pipelines.make_champion import make_champion
from tests.small_model import PROMPTS, write_small_model

SECONDS = 60  # for an answer, on a machine that does other things
IMAGES = "/v1/images/generations"
JSON = {"content-type": "application/json"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


class Client:
    """Requests to one server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, content, names)
            answer = connection.getresponse()
            text, found = answer.read(), dict(answer.getheaders())
        finally:
            connection.close()
        is_json = found.get("content-type") == "application/json"
        return Answer(answer.status, found, json.loads(text) if is_json else text)

    def generate(self, **body: Any) -> Answer:
        return self.ask("POST", IMAGES, body, **JSON)


@contextmanager
def serving(source: ModelSource, **settings: Any) -> Iterator[tuple[Client, ImageServer]]:
    """A server on a free port of loopback, in a thread of this process."""
    config = ServerConfig(**settings)
    server = ImageServer(source, config, png_writer(True))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = uvicorn.Server(uvicorn.Config(server.app(), log_level="error"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: running.started)
            yield Client(listener.getsockname()[1]), server
        finally:
            running.should_exit = True
            thread.join(SECONDS)


def wait_until(happened: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def source_of(model: Path | str, home: Path = Path("nowhere")) -> ModelSource:
    return ModelSource(str(model), home, batch_images=32)


@pytest.fixture(scope="module")
def client(model_folder) -> Iterator[Client]:
    with serving(source_of(model_folder), limits=Limits(body_bytes=2000, prompt_characters=100)) as (
        client,
        _,
    ):
        yield client


def test_images_are_those_of_the_generator_and_say_what_made_them(client, model_folder):
    answer = client.generate(prompt=PROMPTS, n=2, seed=7)
    assert answer.status == 200, answer.body
    generator = Generator.load(model_folder, device="cpu")
    captions = generator.upsample([prompt for prompt in PROMPTS for _ in range(2)], seed=7)
    data = answer.body["data"]
    assert [image["prompt"] for image in data] == [caption.prompt for caption in captions]
    assert [image["revised_prompt"] for image in data] == [caption.caption for caption in captions]
    pngs = [base64.b64decode(image["b64_json"]) for image in data]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in pngs])
    expected = generator.generate([caption.caption for caption in captions], seed=7)
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 1
    assert {examine(png, "image/png", find_credentials()).verdict for png in pngs} == {"ours"}
    assert (answer.body["seed"], answer.body["steps"], answer.body["model"]) == (7, 1, "model")


def test_a_seed_is_drawn_where_none_is_given_and_makes_the_same_image_again(client):
    first, second = (client.generate(prompt="a red circle").body for _ in range(2))
    assert first["seed"] != second["seed"]
    again = client.generate(prompt="a red circle", seed=first["seed"]).body
    assert again["data"][0]["revised_prompt"] == first["data"][0]["revised_prompt"]
    images = [
        Image.open(io.BytesIO(base64.b64decode(a["data"][0]["b64_json"]))) for a in (first, again, second)
    ]
    assert images[0].tobytes() == images[1].tobytes() != images[2].tobytes()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "the body is not JSON"),
        ([1], 400, "not a JSON object"),
        ({}, 422, "prompt: field required"),
        ({"prompt": " "}, 422, "prompt.0: string should have at least 1 character"),
        ({"prompt": []}, 422, "prompt: list should have at least 1 item"),
        ({"prompt": ["a", 3]}, 422, "prompt.1: input should be a valid string"),
        ({"prompt": "a" * 101}, 422, "101 characters in a prompt; at most 100"),
        ({"prompt": ["a"] * 65}, 422, "65 prompts in one request; at most 64"),
        ({"prompt": "a", "n": 10**9}, 422, "1000000000 images in one request; at most 64"),
        ({"prompt": "a", "n": 0}, 422, "n: input should be greater than or equal to 1"),
        ({"prompt": "a", "n": 64, "steps": 17}, 422, "1088 network evaluations"),
        ({"prompt": "a", "steps": 0}, 422, "steps: "),
        ({"prompt": "a", "seed": -1}, 422, "seed: "),
        ({"prompt": "a", "guidance_scale": 9}, 422, "this model absorbed guidance 3"),
        ({"prompt": "a", "size": "1024x1024"}, 422, "size is 1024x1024; this model generates 16x16"),
        ({"prompt": "a", "response_format": "url"}, 422, "response_format: "),
        ({"prompt": "a", "stpes": 3}, 422, "stpes: extra inputs are not permitted"),
        (b'{"prompt": "' + b"a" * 2000 + b'"}', 413, "the body is too large; at most 2000 bytes"),
    ],
)
def test_a_bad_request_is_one_line(client, body, status, says):
    answer = client.ask("POST", IMAGES, body, **JSON)
    assert answer.status == status
    message = answer.body["error"]["message"]
    assert says in message and len(message.splitlines()) == 1


def test_pages_from_elsewhere_cannot_drive_it(client):
    port, body = client.port, {"prompt": "a"}
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": f"http://localhost:{port + 1}"},
        {"origin": "null"},
        {"host": "evil.example"},  # a name that was made to point here
        {"host": f"evil.example:{port}", "origin": f"http://evil.example:{port}"},
    ):
        answer = client.ask("POST", IMAGES, body, **JSON, **headers)
        assert answer.status == 403 and len(answer.body["error"]["message"].splitlines()) == 1, headers
    # What a page may send without asking first: a form, or a text.
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert client.ask("POST", IMAGES, body, content_type=kind).status == 400
    assert client.ask("GET", IMAGES).status == 405
    own = {"host": f"localhost:{port}", "origin": f"http://localhost:{port}"}
    assert client.ask("POST", IMAGES, body, **JSON, **own).status == 200


def test_the_page_needs_nothing_from_elsewhere_and_sets_no_markup(client):
    page = client.ask("GET", "/")
    assert page.status == 200 and b"<textarea" in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    linked = set(re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())) - {"data:,"}
    assert linked == {"page.css", "page.js"}
    for name in linked:
        part = client.ask("GET", f"/{name}")
        assert part.status == 200 and b"//" not in part.body.replace(b"\n// ", b"").removeprefix(b"// ")
    assert "innerHTML" not in (HERE / "page.js").read_text()
    card = client.ask("GET", "/v1/models").body["data"][0]["card"]
    assert card["about"]["image size"] == "16 × 16" and card["about"]["kind"] == "consistency model"


def test_what_takes_too_long_or_waits_too_much_is_given_up(model_folder):
    limits = Limits(seconds=0.5, waiting_requests=1, evaluations=64_000)
    with serving(source_of(model_folder), limits=limits) as (client, server):
        answers: list[Answer] = []
        long = threading.Thread(target=lambda: answers.append(client.generate(prompt="a", n=64, steps=1000)))
        long.start()
        wait_until(lambda: server.batcher.waiting()[0])
        refused = client.generate(prompt="a")
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        long.join(SECONDS)
        assert answers[0].status == 504
        assert answers[0].body["error"]["message"].startswith("not done after 0.5 s")
        wait_until(lambda: server.batcher.waiting() == (0, 0))
        assert client.ask("GET", "/health").body["status"] == "ok"


def test_a_client_that_leaves_frees_its_place(model_folder):
    with serving(source_of(model_folder), limits=Limits(evaluations=64_000)) as (client, server):
        body = json.dumps({"prompt": "a", "n": 64, "steps": 1000}).encode()
        head = f"POST {IMAGES} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", client.port)) as connection:
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            wait_until(lambda: server.batcher.waiting()[0])
        wait_until(lambda: server.batcher.waiting() == (0, 0))


def test_beyond_loopback_a_token_is_asked_for(model_folder):
    for open_to_all in ({"host": "0.0.0.0"}, {"host": "::"}, {"host": "example.org"}):
        with pytest.raises(ConfigError, match="opens the model to the network"):
            ServerConfig(**open_to_all).check()
    ServerConfig(host="0.0.0.0", insecure=True).check()
    ServerConfig(host="::1").check()
    config = {"host": "0.0.0.0", "token": "a secret"}
    ServerConfig(**config).check()
    with serving(source_of(model_folder), **config) as (client, _):
        for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "a secret "}):
            assert client.ask("POST", IMAGES, {"prompt": "a"}, **JSON, **headers).status == 401
        assert client.ask("GET", "/v1/models").status == 401
        own = {"authorization": "Bearer a secret", "host": "studio.example"}
        assert client.ask("POST", IMAGES, {"prompt": "a"}, **JSON, **own).status == 200
        assert client.ask("GET", "/health").status == client.ask("GET", "/").status == 200


def test_a_promotion_is_followed_and_fails_no_request(model_folder, tmp_path):
    home = tmp_path / "home"
    registry = Registry(Tracker(home))
    promote(registry, model_folder, "first")
    other = write_small_model(tmp_path / "other", seed=1, upsampler=False)
    with serving(source_of("champion", home), poll_seconds=0.1) as (client, server):
        assert client.ask("GET", "/health").body["model"] == "straightshot/1"
        answers: list[Answer] = []
        ended = threading.Event()

        def keep_asking() -> None:
            while not ended.is_set():
                answers.append(client.generate(prompt="a red circle", seed=3, upsample=False))

        clients = [threading.Thread(target=keep_asking) for _ in range(2)]
        for thread in clients:
            thread.start()
        promote(registry, other, "second")
        wait_until(lambda: server.current.loaded.label == "straightshot/2")
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 4)
        ended.set()
        for thread in clients:
            thread.join(SECONDS)
        card = client.ask("GET", "/v1/models").body["data"][0]["card"]
        assert card["about"]["aliases"] == "champion"
    assert {answer.status for answer in answers} == {200}
    images: dict[str, set[bytes]] = {}
    for answer in answers:
        png = base64.b64decode(answer.body["data"][0]["b64_json"])
        images.setdefault(answer.body["model"], set()).add(Image.open(io.BytesIO(png)).tobytes())
    for label, folder in (("straightshot/1", model_folder), ("straightshot/2", other)):
        (image,) = images[label]
        expected = Generator.load(folder, device="cpu").generate(["a red circle"], seed=3)[0]
        assert np.abs(np.frombuffer(image, np.uint8).astype(int) - expected.ravel().astype(int)).max() <= 1


def promote(registry: Registry, folder: Path, digest: str) -> None:
    with registry.tracker.run("promote", digest) as run:
        version = registry.register(folder, digest, run, steps=1, tags={})
    make_champion(registry, version.version)


def test_the_command_serves_until_it_is_interrupted(model_folder, tmp_path):
    command = [sys.executable, "-m", "dags.cli.app", "serve", "--model", str(model_folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        port = re.search(r"serving model at http://127\.0\.0\.1:(\d+);", lines[1])
        assert port, lines
        assert Client(int(port[1])).generate(prompt="a red circle").status == 200
        with pytest.raises(ConfigError, match=f"--port {port[1]}: .*; choose another"):
            run_server(str(model_folder), tmp_path, ServerConfig(port=int(port[1])), png_writer(False), print)
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert len(errors.splitlines()) == 1
