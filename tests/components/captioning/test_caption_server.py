"""Captions from a server: its model's, whatever goes wrong on the way, and one clear line if all does."""

import json
import socket
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import SecretStr, ValidationError

from components.captioning.answers import Answers
from components.captioning.architecture import make_model, make_processor, train_tokenizer
from components.captioning.captioner import Captioner
from components.captioning.config import GREEDY, ServerConfig
from components.captioning.kinds import TEMPLATES, CaptionKind
from components.captioning.server import ServerCaptioner
from components.corpus.rejection import Rejection
from components.errors import InputError
from tests.vision_server import COLOURS, colour_of, completion, running

KIND = CaptionKind("short", "What is it?", max_tokens=8)
KEY = "sk-secret-7f3a"


def images(*names: str) -> list[Image.Image]:
    return [Image.new("RGB", (32, 24), COLOURS[name]) for name in names]


def captioner(url: str, folder: Path | None = None, **settings) -> ServerCaptioner:
    config = ServerConfig(base_url=url, **{"model": "small", "retries": 1, "timeout_seconds": 10, **settings})
    return ServerCaptioner(config, SecretStr(KEY), answers=Answers(folder) if folder else None)


def is_grey(image: Image.Image) -> bool:
    """The image of the check before the first request."""
    return image.getpixel((0, 0)) in ((128, 128, 128), (127, 127, 127), (129, 129, 129))


def colour(image: Image.Image, prompt: str, body: dict) -> dict:
    return completion(f"{colour_of(image)}: {prompt}")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("captioner")
    tokenizer = train_tokenizer(["a red square above a blue circle, what is it? " * 3], 300)
    torch.manual_seed(0)
    sizes = {"channels": (8, 8, 16, 16), "blocks": 1, "width": 32, "text_depth": 1, "heads": 2}
    make_model(tokenizer, image_size=32, **sizes).save_pretrained(folder)
    make_processor(tokenizer, 32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def served(untrained) -> Iterator[str]:
    """`transformers serve` with that captioner."""
    from transformers.cli.serve import Serve

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = Serve(
        force_model=str(untrained),
        device="cpu",
        dtype="float32",
        host="127.0.0.1",
        port=port,
        non_blocking=True,
    )
    for _ in range(900):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
            break
        except OSError:
            time.sleep(0.2)
    yield f"http://127.0.0.1:{port}/v1"
    serve.kill_server()


def test_transformers_serve_gives_the_captions_that_the_model_gives_here(untrained, served):
    shown = [Image.effect_noise((32, 32), 90).convert("RGB") for _ in range(3)]
    prompts = ["what is it?", "a red circle?", TEMPLATES["hint@1"]]
    here = Captioner.load(str(untrained), sampling=GREEDY).caption(shown, KIND, prompts=prompts)
    server = captioner(served, model=str(untrained), image_format="png", concurrency=2)
    there = server.caption(shown, KIND, ["1" * 64, "2" * 64, "3" * 64], prompts=prompts)
    assert there == here and len(set(here)) > 1 and any(here)


def test_transformers_serve_asked_for_another_model_is_one_line_that_says_so(served):
    with pytest.raises(
        InputError, match=r"^recaption\.server http://127\S+ does not take.*'small'.*pinned to"
    ):
        captioner(served).caption(images("red"), KIND, ["1" * 64])


def fault(name: str):
    """A server's first reply to an image, by the image's colour."""
    return {
        "red": (429, {"message": "slow down", "headers": {"Retry_After": "0.3"}}),
        "green": (503, {"message": "loading"}),
        "blue": b'{"choices": [{"message": {"content": "cut',
        "white": b"<html>gateway</html>",
    }[name]


def test_what_goes_wrong_once_is_asked_again(tmp_path):
    seen = Counter()

    def unruly(image, prompt, body):
        if is_grey(image):
            return completion("grey")
        seen[colour_of(image)] += 1
        first = seen[colour_of(image)] == 1
        return fault(colour_of(image)) if first else colour(image, prompt, body)

    with running(unruly) as server:
        began = time.monotonic()
        captions = captioner(server.url).caption(images(*COLOURS), KIND, [name * 9 for name in COLOURS])
        assert time.monotonic() - began > 0.3, "Retry-After is heeded"
    assert captions == [f"{name}: What is it?" for name in COLOURS]
    assert set(seen.values()) == {2}
    assert server.keys == {f"Bearer {KEY}"}


def test_a_server_that_is_silent_once_is_asked_again():
    silent = [3]  # seconds

    def answer(image, prompt, body):
        return silent.pop() if silent and not is_grey(image) else colour(image, prompt, body)

    with running(answer) as server:
        captions = captioner(server.url, timeout_seconds=1.5, retries=3).caption(
            images("red"), KIND, ["1" * 64]
        )
    assert captions == ["red: What is it?"]


FATAL = {
    "401": (
        (401, {"message": f"wrong key {KEY}"}),
        r"answered 401 .*OPENAI_API_KEY holds a key",
    ),
    "unknown model": ((404, {"message": "no such"}), r"answered 404 .* no model 'small' \(it lists small\)"),
    "429 for ever": ((429, {"message": "quota"}), r"answered 429 .*after 2 tries: lower concurrency"),
    "500 for ever": ((500, {"message": "oh"}), r"answered 500 .*after 2 tries; the same command goes on"),
    "not an API": (b"<html>welcome</html>", r"no chat completion: <html>welcome</html>; is base_url"),
    "no images": ((400, {"message": "not multimodal"}), r"does not take a request .*400: .*not multimodal"),
}


@pytest.mark.parametrize("name", FATAL)
def test_a_server_that_cannot_be_used_is_one_line(name):
    reply, wanted = FATAL[name]

    def always(image, prompt, body):
        return (reply[0], dict(reply[1])) if isinstance(reply, tuple) else reply

    with running(always) as server, pytest.raises(InputError, match=wanted) as raised:
        captioner(server.url).caption(images("red", "blue"), KIND, ["1" * 64, "2" * 64])
    assert KEY not in str(raised.value) and "\n" not in str(raised.value)


def test_a_server_that_is_away_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(InputError, match=r"cannot be reached \(.*refused.*\); start it, or set base_url"):
        captioner(url, retries=0).caption(images("red"), KIND, ["1" * 64])


def test_a_refused_image_is_a_reason_and_its_neighbours_have_captions():
    def picky(image, prompt, body):
        return {
            "red": completion(None, refusal="I'm sorry, I can't help with that."),
            "green": completion("part of", finish="content_filter"),
            "blue": (400, {"message": "image is too wide", "code": "invalid_image"}),
        }.get(colour_of(image)) or completion("A white wall. It is", finish="length")

    with running(lambda *a: completion("x") if is_grey(a[0]) else picky(*a)) as server:
        captions = captioner(server.url).caption(images(*COLOURS), KIND, list("1234"))
    assert [c.reason.value for c in captions if isinstance(c, Rejection)] == [
        "caption_refused",
        "caption_refused",
        "errored",
    ]
    assert "too wide" in captions[2].detail
    assert captions[3] == "A white wall.", "what was cut at the limit loses the sentence that was cut"


def test_what_was_answered_is_not_asked_again(tmp_path):
    with running(colour) as server:
        first = captioner(server.url, tmp_path)
        before = first.caption(images("red", "blue"), KIND, ["1" * 64, "2" * 64])
        assert first.asked == 3, "two captions and the check"
    again = captioner(server.url, tmp_path)  # the server is gone
    assert again.caption(images("red", "blue"), KIND, ["1" * 64, "2" * 64]) == before
    assert again.asked == 0
    with pytest.raises(InputError, match="cannot be reached"):
        captioner(server.url, tmp_path, retries=0).caption(
            images("red"), KIND, ["1" * 64], prompts=["Another prompt?"]
        )
    Answers(tmp_path).forget(["1" * 64])
    left = [json.loads(path.read_text())["text"] for path in tmp_path.rglob("*.json")]
    assert left == ["blue: What is it?"]


def test_another_attempt_has_another_seed_and_a_temperature():
    bodies = []

    def keep(image, prompt, body):
        bodies.append(body)
        return colour(image, prompt, body)

    with running(keep) as server:
        asked = captioner(server.url, request={"top_p": 0.9, "max_tokens": None})
        for attempt in range(3):
            asked.caption(images("red"), KIND, ["1" * 64], attempt=attempt)
    first, second, third = bodies[1:]
    assert (first["temperature"], "seed" in first) == (0, False)
    assert second["temperature"] == third["temperature"] > 0 and second["seed"] != third["seed"]
    assert first["top_p"] == 0.9 and "max_tokens" not in first


def test_no_more_requests_at_once_or_in_a_minute_than_the_config_says():
    def slow(image, prompt, body):
        time.sleep(0.05)
        return colour(image, prompt, body)

    many = [image for _ in range(2) for image in images(*COLOURS)]
    with running(slow) as server:
        captioner(server.url, concurrency=2, requests_per_minute=1200).caption(many, KIND, list("12345678"))
    assert server.most_at_once <= 2
    assert server.begun[-1] - server.begun[0] > 0.9 * 8 * 60 / 1200


@pytest.mark.parametrize("url", ["http://user:pw@host/v1", "https://host/v1?api_key=abc", "ftp://host"])
def test_an_address_with_a_secret_or_of_another_kind_is_refused(url):
    with pytest.raises(ValidationError, match=r"environment variable|http:// or https://"):
        ServerConfig(base_url=url, model="small")
