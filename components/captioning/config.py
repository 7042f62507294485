"""The settings of captioners, without torch: how one draws, how one is fitted here, where a server is."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from components.errors import InputError
from components.redaction import redacted
from components.training.config import OptimizerConfig, TrainingConfig

FIT, NONE = "fit", "none"  # in place of a pretrained model's id or path


class SamplingConfig(BaseModel):
    """How a captioner draws the next token."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    min_p: float = Field(
        0.5, gt=0, le=1, description="least probability of a token, as a part of the likeliest's; 1: greedy"
    )
    seed: int = Field(0, ge=0, description="of the draws, with the record's key and the caption's kind")

    @property
    def greedy(self) -> bool:
        return self.min_p == 1


GREEDY = SamplingConfig(min_p=1.0)


class ServerConfig(BaseModel):
    """A server of a vision model behind OpenAI's API: vLLM, `transformers serve`, SGLang, a hosted one.

    The API key is read from the environment and is no part of any config. What a server answers depends on
    the model's name, the temperature, the image's format and `request`; the rest says how it is reached
    (REACHED).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    base_url: str = Field(description="its API's address, such as http://localhost:8000/v1")
    model: str = Field(min_length=1, description="as the server names it")
    api_key_variable: str = Field("OPENAI_API_KEY", description="environment variable with the API key")
    temperature: float = Field(
        0.0, ge=0, le=2, description="0: the likeliest tokens; above: drawn, by a seed for each image"
    )
    image_format: Literal["jpeg", "png"] = Field(
        "jpeg", description="what images are sent as; png: exact, and several times the bytes"
    )
    request: dict[str, Any] = Field(
        default_factory=dict,
        description="more fields of each request, such as top_p; null leaves out a field that we would send",
    )
    concurrency: int = Field(16, ge=1, description="requests under way at once, of all workers together")
    requests_per_minute: float | None = Field(
        None, gt=0, description="most requests begun in a minute, by all workers together"
    )
    timeout_seconds: float = Field(120.0, gt=0, description="for one answer")
    retries: int = Field(
        10,
        ge=0,
        description="of a request that failed (429, 5xx, no connection), backing off",
    )

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise InputError("it must be an http:// or https:// address, such as http://localhost:8000/v1")
        if redacted(url) != url:
            raise InputError(
                "it holds a password or key, which receipts would store; put the key into the environment"
                " variable that api_key_variable names"
            )
        return url.rstrip("/")


# How a server is reached, which changes nothing about its answers; in the form of pydantic's `exclude`.
REACHED = dict.fromkeys(
    (
        "base_url",
        "api_key_variable",
        "concurrency",
        "requests_per_minute",
        "timeout_seconds",
        "retries",
    ),
    True,
)


class CaptionerFitConfig(BaseModel):
    """Sizes of the captioner and how it is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    image_size: int = Field(
        64, gt=0, multiple_of=16, description="side that images are resized to, in pixels"
    )
    channels: tuple[int, int, int, int] = Field(
        (32, 64, 128, 128), description="of the vision tower's stages, at strides 4, 8, 16 and 16"
    )
    blocks: int = Field(1, gt=0, description="residual blocks of a stage of the vision tower")
    width: int = Field(128, gt=0, description="features of a token of the language model")
    text_depth: int = Field(3, gt=0, description="layers of the language model")
    heads: int = Field(4, gt=0)
    vocabulary: int = Field(512, ge=300, description="tokens")
    tower_fraction: float = Field(
        0.6,
        ge=0,
        lt=1,
        description="of the training's images, the share that the vision tower learns alone from",
    )
    training: TrainingConfig = TrainingConfig(
        images=50_000,
        batch_size=32,
        optimizer=OptimizerConfig(learning_rate=2e-3, muon_learning_rate=2e-2, warmup_images=1_500),
        ema_halflife_images=1_000,
    )
