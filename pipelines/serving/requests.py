"""The body of POST /v1/images/generations: the form of OpenAI's images API, checked."""

import json
import math
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from components.errors import InputError, one_line
from components.generation.generator import Generator
from components.randomness import sample_seeds
from pipelines.errors import StraightshotError
from pipelines.serving.settings import Limits
from pipelines.serving.work import Work

MAX_SEED = 2**63 - 1
DRAWN_SEEDS = 2**31  # a seed that no request gave is below this, so that it is exact in every JSON reader


class BadRequest(StraightshotError):
    """A request that cannot be answered. status: of the HTTP answer."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class ImagesRequest(BaseModel):
    """What a client asks for. `model`, `user`, `quality` and `style` are accepted, and change nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: Annotated[list[Prompt], BeforeValidator(_as_list)] = Field(min_length=1)
    n: int = Field(1, ge=1, description="images of each prompt")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="the same seed gives the same images")
    steps: int | None = Field(None, ge=1, description="network evaluations of an image")
    guidance_scale: float | None = None
    upsample: bool = True
    response_format: Literal["b64_json"] = "b64_json"
    size: str | None = Field(None, description="one of the model's, as WIDTHxHEIGHT, or auto")
    model: str | None = None
    user: str | None = None
    quality: str | None = None
    style: str | None = None


def read_request(body: bytes) -> ImagesRequest:
    """The request in a body. Raises BadRequest, one line: 400 where it is no JSON object, else 422."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON ({one_line(error, 100)})", 400) from error
    if not isinstance(document, dict):
        raise BadRequest('the body is not a JSON object; send {"prompt": "a red circle"}', 400)
    try:
        return ImagesRequest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRequest(f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}") from error


def work_of(request: ImagesRequest, generator: Generator, limits: Limits) -> tuple[Work, int]:
    """What the model is to do for a request, and its seed. Raises BadRequest for more than the limits allow.

    Image i is that of (seed, i): `straightshot generate` with the same prompts, -n and --seed makes the same.
    """
    steps = generator.model.card.steps if request.steps is None else request.steps
    _check_limits(request, steps, limits)
    prompts = [prompt for prompt in request.prompt for _ in range(request.n)]
    sizes = {str(size): size for size in generator.sizes}
    size = generator.sizes[0] if request.size in (None, "auto") else sizes.get(request.size)
    if size is None:  # only what it was trained at: anyone may ask for any size
        raise BadRequest(f"size is {request.size}; this model generates {', '.join(sizes)}")
    guidance = generator.model.card.guidance if request.guidance_scale is None else request.guidance_scale
    if guidance is not None and not math.isfinite(guidance):
        raise BadRequest("guidance_scale: it must be a number")
    try:
        generator.generate([], steps=steps, guidance=guidance)  # bad settings fail before any work
    except InputError as error:
        raise BadRequest(str(error)) from error
    seed = secrets.randbelow(DRAWN_SEEDS) if request.seed is None else request.seed
    seeds = sample_seeds(seed, len(prompts))
    return Work(generator, prompts, seeds, steps, guidance, request.upsample, size), seed


def _check_limits(request: ImagesRequest, steps: int, limits: Limits) -> None:
    images = len(request.prompt) * request.n
    asked: Sequence[tuple[str, int, int]] = (
        ("prompts in one request", len(request.prompt), limits.prompts),
        ("characters in a prompt", max(map(len, request.prompt)), limits.prompt_characters),
        ("images in one request", images, limits.images),
        ("network evaluations (images × steps) in one request", images * steps, limits.evaluations),
    )
    for what, number, most in asked:
        if number > most:
            raise BadRequest(f"{number} {what}; at most {most}")
