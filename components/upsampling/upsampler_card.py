"""The card that a prompt upsampler is saved with: how it is used, without how it was made."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

CheckName = Literal["toy_statements", "words", "similarity"]  # the keys of prompt_checks.CHECKS


class UpsamplerUse(BaseModel):
    """What a config asks for and a card keeps: how an upsampler samples, and what is checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    temperature: float = Field(
        1.0, gt=0, description="of its samples; 1: what a prompt leaves open varies as in the captions"
    )
    min_p: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="tokens below this part of the likeliest one's probability are left out",
    )
    tries: int = Field(4, ge=1, description="1, 2, 4, … captions are sampled before a prompt stays as it is")
    checks: tuple[CheckName, ...] = Field((), description="of each caption against its prompt, in this order")
    keep_complete: bool = Field(False, description="leave a prompt that says all already as it is")


class UpsamplerCard(UpsamplerUse):
    """How an upsampler is used: its settings, with the thresholds that were taken from the captions."""

    min_similarity: float | None = Field(
        None, description="cosine of the judge's features of prompt and caption; null: not asked"
    )
    complete_words: int | None = Field(
        None, description="words from which on a prompt says all, where no parser tells; null: none does"
    )
