"""A captioner that is a server's: any vision model behind OpenAI's chat completions.

OpenAI's own client asks: it retries with backoff, heeds Retry-After, and tells a refused key from an unknown
model. What is here is what it lacks: answers kept by request, a limited rate over all retries, answers that
are no chat completion, and errors that say in one line what to set.
"""

import base64
import io
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from PIL import Image
from pydantic import BaseModel, SecretStr, ValidationError

from components.captioning.answers import Answer, Answers, request_digest
from components.captioning.cleaning import without_cut_sentence
from components.captioning.config import ServerConfig
from components.captioning.kinds import CaptionKind
from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.errors import REASON_LENGTH, InputError, one_line
from components.randomness import derive_seed
from components.redaction import HIDDEN, redacted

if TYPE_CHECKING:
    from openai import APIError, OpenAI

RETRY_TEMPERATURE = 0.7  # of another attempt, where the first has temperature 0 and would be repeated
SEED_BITS = 31  # what every server takes as an integer
JPEG_QUALITY = 92
PROBE_SIDE = 64  # pixels; some models take no smaller image
REACH_RETRIES = 2  # of the first connection: a server that is away is seen in seconds
WHOLE_TRIES = 3  # of a request that was answered with what is no chat completion
CONNECT_SECONDS = 10.0
NO_KEY = "none"  # the client wants a key; a server that has none ignores it
REFUSALS = ("content_policy_violation", "content_filter", "moderation_blocked")  # codes of a 400


class ServerCaptioner:
    """Asks a server for captions, several at a time. It is asked by threads, and used by one.

    api_key: of the server, if it wants one. answers: where answers are kept. seed: of the draws, where the
    temperature is above 0. workers: among how many processes concurrency and rate are divided.
    """

    keyed_by = "sha256"  # so that the same image in another snapshot is not asked about again

    def __init__(
        self,
        config: ServerConfig,
        api_key: SecretStr | None = None,
        *,
        answers: Answers | None = None,
        seed: int = 0,
        workers: int = 1,
    ) -> None:
        self.config, self.answers, self.seed = config, answers, seed
        self._key = api_key.get_secret_value() if api_key else ""
        self._threads = ThreadPoolExecutor(max(1, config.concurrency // workers))
        self._pace = _Pace(workers, config.requests_per_minute)
        self._lock = threading.RLock()  # of what follows
        self._checked: bool | InputError = False
        self.asked = 0  # requests that were not answered from what is kept

    def caption(
        self,
        images: Sequence[Image.Image],
        kind: CaptionKind,
        keys: Sequence[str],
        *,
        prompts: Sequence[str] | None = None,
        attempt: int = 0,
    ) -> list[str | Rejection]:
        """One caption of that kind per image, as the model writes it, or why it gave none.

        images: RGB, of any size. keys: the sha256 of each image's bytes: what its draws depend on, and whose
        its answers are. prompts: of each image, by default the kind's. attempt: another one has another seed.
        Raises InputError, one line, where the server cannot be used.
        """
        prompts = [kind.prompt] * len(images) if prompts is None else prompts
        asked = [
            self._threads.submit(self._caption, image, kind, key, prompt, attempt)
            for image, key, prompt in zip(images, keys, prompts, strict=True)
        ]
        try:
            return [future.result() for future in asked]
        finally:
            for future in asked:
                future.cancel()  # where one failed, those that are not begun yet

    def _caption(
        self, image: Image.Image, kind: CaptionKind, key: str, prompt: str, attempt: int
    ) -> str | Rejection:
        seed = derive_seed(self.seed, "caption", key, kind.name, attempt)
        body = self._body(image, prompt, kind.max_tokens, seed, attempt)
        digest = request_digest(body)
        answer = self.answers.find(key, digest) if self.answers else None
        if answer is None:
            self._check(prompt, kind.max_tokens)
            asked = self._ask(body)
            if isinstance(asked, Rejection):
                return asked
            answer = self.answers.keep(key, digest, asked) if self.answers else asked
        if answer.refusal is not None:
            return Rejection(Reason.CAPTION_REFUSED, one_line(answer.refusal, REASON_LENGTH))
        return without_cut_sentence(answer.text) if answer.cut else answer.text

    def _body(
        self, image: Image.Image, prompt: str, max_tokens: int, seed: int, attempt: int
    ) -> dict[str, Any]:
        """A request. Its seed is left out where nothing is drawn, so that equal images share an answer."""
        temperature = self.config.temperature or (RETRY_TEMPERATURE if attempt else 0.0)
        content = [
            {"type": "image_url", "image_url": {"url": _data_url(image, self.config.image_format)}},
            {"type": "text", "text": prompt},
        ]
        body = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_tokens,
            "temperature": temperature,
            **({"seed": seed % 2**SEED_BITS} if temperature else {}),
            **self.config.request,
        }
        return {name: value for name, value in body.items() if value is not None}

    def _check(self, prompt: str, max_tokens: int) -> None:
        """Before the first request of this process: whether the server is there and takes such a request.

        So that what is wrong with all of them is one error, and not a reject for every record.
        """
        with self._lock:
            if isinstance(self._checked, InputError):
                raise self._checked
            if not self._checked:
                try:
                    self._probe(prompt, max_tokens)
                except InputError as error:
                    self._checked = error  # the threads that wait here need not try again
                    raise
                self._checked = True

    def _probe(self, prompt: str, max_tokens: int) -> None:
        self._reach()
        grey = Image.new("RGB", (PROBE_SIDE, PROBE_SIDE), (128, 128, 128))
        refused = self._ask(self._body(grey, prompt, max_tokens, 0, 0))
        if isinstance(refused, Rejection) and refused.reason is not Reason.CAPTION_REFUSED:
            self._fail(f"does not take a request for '{self.config.model}'{self._served()}: {refused.detail}")

    def _reach(self) -> None:
        from openai import APIConnectionError, APIError

        try:
            self._client.with_options(max_retries=min(REACH_RETRIES, self.config.retries)).models.list()
        except APIConnectionError as error:
            self._explain(error)
        except (APIError, ValueError):
            pass  # it is there; whether it answers is for a request to show

    def _ask(self, body: dict[str, Any]) -> Answer | Rejection:
        """The server's answer; a Rejection where it does not take this request. Raises InputError."""
        import httpx2
        from openai import APIError, APIStatusError

        for attempt in range(WHOLE_TRIES):
            time.sleep(attempt)
            with self._lock:
                self.asked += 1
            try:
                response = self._client.post("/chat/completions", body=body, cast_to=httpx2.Response)
            except APIStatusError as error:
                if error.status_code in (400, 413, 422):
                    refused = error.code in REFUSALS
                    reason = Reason.CAPTION_REFUSED if refused else Reason.ERRORED
                    return Rejection(reason, f"{error.status_code}: {self._quoted(error)}")
                self._explain(error)
            except APIError as error:
                self._explain(error)
            if (answer := _parsed(response.text)) is not None:
                return answer
        quoted = self._quoted(response.text) or "nothing"
        self._fail(f"answered what is no chat completion: {quoted}; is base_url its API, as a rule …/v1?")

    def _explain(self, error: "APIError") -> NoReturn:
        """Raise the InputError that says what is wrong and what to do."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        tries = f"after {self.config.retries + 1} tries"
        if isinstance(error, APITimeoutError):
            self._fail(
                f"gave no answer in {self.config.timeout_seconds:g} s, {tries}; raise timeout_seconds, or"
                " lower concurrency"
            )
        if isinstance(error, APIConnectionError):
            why = self._quoted(error.__cause__ or error)
            self._fail(f"cannot be reached ({why}); start it, or set base_url")
        status = error.status_code if isinstance(error, APIStatusError) else 0
        quoted = f"{status or ''} ({self._quoted(error)})".strip()
        if status in (401, 403):
            given = "is not set" if not self._key else "holds a key that it does not take"
            self._fail(f"answered {quoted}: the environment variable {self.config.api_key_variable} {given}")
        if status == 404:
            self._fail(
                f"answered {quoted}: it has no model '{self.config.model}'{self._served()}; or base_url is"
                " not its API, as a rule …/v1"
            )
        if status == 429:
            self._fail(
                f"answered {quoted}, {tries}: lower concurrency, set requests_per_minute, or raise retries;"
                " the same command goes on from here"
            )
        self._fail(f"answered {quoted}, {tries}; the same command goes on from here")

    def _fail(self, what: str) -> NoReturn:
        raise InputError(f"recaption.server {redacted(self.config.base_url)} {what}")

    def _served(self) -> str:
        """What the server lists, for an error."""
        from openai import APIError

        try:
            listed = [model.id for model in self._client.with_options(max_retries=0).models.list().data]
        except (APIError, ValueError, TypeError, AttributeError):
            return ""
        return f" (it lists {', '.join(sorted(listed)[:5])})" if listed else ""

    def _quoted(self, error: object) -> str:
        """An error's text on one line, without the key."""
        from openai import APIStatusError

        text = one_line(_said(error.response.text) if isinstance(error, APIStatusError) else error)
        return (text.replace(self._key, HIDDEN) if self._key else text)[:REASON_LENGTH]

    @cached_property
    def _client(self) -> "OpenAI":
        import httpx2
        from openai import DefaultHttpxClient, OpenAI

        seconds = self.config.timeout_seconds
        return OpenAI(
            base_url=self.config.base_url,
            api_key=self._key or NO_KEY,
            timeout=httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
            max_retries=self.config.retries,
            http_client=DefaultHttpxClient(event_hooks={"request": [self._pace]}),
        )


class _Pace:
    """Has requests begin so far apart that all workers together stay below a rate."""

    def __init__(self, workers: int, per_minute: float | None) -> None:
        self.interval = 60 * workers / per_minute if per_minute else 0.0  # seconds between two of this worker
        self._next, self._lock = 0.0, threading.Lock()

    def __call__(self, _request: object) -> None:
        with self._lock:
            begins = max(self._next, time.monotonic())
            self._next = begins + self.interval
        time.sleep(max(0.0, begins - time.monotonic()))


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _ChatCompletion(BaseModel):
    """What we read of OpenAI's answer; servers add to it."""

    choices: list[_Choice]


def _parsed(text: str) -> Answer | None:
    """The answer in a response; None where it is none."""
    try:
        completion = _ChatCompletion.model_validate(json.loads(text))
        choice = completion.choices[0]
    except (ValueError, ValidationError, IndexError):
        return None
    filtered = "filtered by the server" if choice.finish_reason == "content_filter" else None
    return Answer(
        text=choice.message.content or "",
        cut=choice.finish_reason == "length",
        refusal=choice.message.refusal or filtered,
    )


def _said(text: str) -> str:
    """The message in the body of an error: OpenAI's form, FastAPI's, or the body itself."""
    try:
        body = json.loads(text)
    except ValueError:
        return text
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return str(error)


def _data_url(image: Image.Image, image_format: str) -> str:
    """The image in a URL, as vision servers take it."""
    buffer = io.BytesIO()
    if image_format == "jpeg":
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)  # small text keeps its colours
    else:
        image.save(buffer, "PNG")
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode()}"
