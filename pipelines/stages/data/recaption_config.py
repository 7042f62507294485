"""recaption's config: what the captioner is asked for, who it is, and which captions are good enough."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from components.captioning.config import REACHED, SamplingConfig, ServerConfig
from components.captioning.kinds import ALT_TEXT, CAPTION_KINDS, CaptionKind, template_text
from components.config_field import added_field
from components.judge.heads import HeadConfig
from pipelines.stage import StageConfig
from pipelines.stages.model_runtime import CAPTIONER_RUNTIME, JUDGE_RUNTIME, PLACEMENT, ModelRuntime


class KindConfig(BaseModel):
    """What the captioner is asked for, for one kind of caption."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: str = Field(min_length=1, description="the instruction, or a template's name, such as long@2")
    max_tokens: int = Field(ge=1, description="where a caption is cut, in tokens")
    min_words: int = Field(ge=0, description="fewest words with a letter in a usable caption")
    max_repetition: float = Field(
        ge=0, le=1, description="largest share of word triples that occurred before in a usable caption"
    )
    hint: str | None = added_field(
        None,
        description=f"follows the prompt, with the record's alt text at {ALT_TEXT}; or a template: hint@1",
    )

    @field_validator("prompt", "hint")
    @classmethod
    def _is_known(cls, prompt: str | None) -> str | None:
        """A name stays a name, so that the config says which version it is."""
        if prompt is not None:
            template_text(prompt)
        return prompt

    @field_validator("hint")
    @classmethod
    def _shows_the_alt_text(cls, hint: str | None) -> str | None:
        if hint is not None and ALT_TEXT not in template_text(hint):
            raise ValueError(f"it must say where the alt text goes: {ALT_TEXT}")
        return hint

    def applied(self, kind: CaptionKind) -> CaptionKind:
        """The kind as this config has it."""
        settings: dict[str, Any] = {name: getattr(self, name) for name in KindConfig.model_fields}
        texts = {name: settings[name] and template_text(settings[name]) for name in ("prompt", "hint")}
        return replace(kind, **settings | texts)


class RecaptionConfig(StageConfig):
    """What the captioner is asked for, and which captions are good enough."""

    NOT_IN_FINGERPRINT: ClassVar[Mapping[str, Any]] = {
        "captioner": PLACEMENT,
        "judge": PLACEMENT,
        "server": REACHED,
        "heads": {"__all__": {"path": True}},
    }

    kinds: dict[str, KindConfig] = Field(
        default_factory=dict, validate_default=True, description="by name; what is not set is the table's"
    )
    sampling: SamplingConfig = SamplingConfig()
    captioner: ModelRuntime = CAPTIONER_RUNTIME
    judge: ModelRuntime = JUDGE_RUNTIME
    caption_threshold: float | None = Field(
        None, ge=-1, le=1, description="least cosine of image and each caption; it depends on the judge"
    )
    server: ServerConfig | None = added_field(
        None, description="asked for captions in place of the annotators' captioner"
    )
    agreement_threshold: float | None = added_field(
        None,
        ge=-1,
        le=1,
        description="least cosine of any two captions of an image, by the judge's text tower",
    )
    retries: int = added_field(
        0,
        ge=0,
        le=5,
        description="times that a record with an unusable caption is captioned again, with another seed",
    )
    heads: dict[str, HeadConfig] = added_field(
        {}, description="by name: aesthetic, nsfw, watermark or another; scored before captioning"
    )

    @field_validator("kinds", mode="before")
    @classmethod
    def _complete(cls, kinds: Any) -> Any:
        """Every kind of the table, with what the config sets of it."""
        if not isinstance(kinds, Mapping):
            return kinds
        for name in kinds:
            if name not in CAPTION_KINDS:
                raise ValueError(
                    f"no kind of caption is named '{name}'; there are {', '.join(CAPTION_KINDS)}, and"
                    " components/captioning/kinds.py is where to add one"
                )
        return {name: _completed(kinds.get(name, {}), kind) for name, kind in CAPTION_KINDS.items()}

    @property
    def caption_kinds(self) -> tuple[CaptionKind, ...]:
        """The kinds with this config's prompts and limits, in the table's order."""
        return tuple(kind.applied(CAPTION_KINDS[name]) for name, kind in self.kinds.items())


def _completed(config: Any, kind: CaptionKind) -> Any:
    """What a config sets of a kind, and the table's values for the rest; pydantic checks the outcome."""
    if not isinstance(config, Mapping):
        return config
    return {name: getattr(kind, name) for name in KindConfig.model_fields} | dict(config)
