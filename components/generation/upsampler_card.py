"""The card that a prompt upsampler is saved with: how it is used, without how it was made."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

CheckName = Literal["toy_statements", "words", "similarity"]  # the keys of prompt_checks.CHECKS
TRIES = 4
MIN_P = 0.05


class UpsamplerCard(BaseModel):
    """How an upsampler is used: how it samples, what is checked, which prompts it leaves as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    temperature: float = Field(1.0, gt=0)
    min_p: float = Field(
        MIN_P,
        ge=0,
        lt=1,
        description="tokens below this part of the likeliest one's probability are left out",
    )
    tries: int = Field(
        TRIES, ge=1, description="1, 2, 4, … captions are sampled before a prompt stays as it is"
    )
    checks: tuple[CheckName, ...] = Field((), description="asked in this order")
    min_similarity: float | None = Field(
        None, description="cosine of the judge's features of prompt and caption; null: not asked"
    )
    keep_complete: bool = Field(False, description="whether a prompt that says all goes through unchanged")
    complete_words: int | None = Field(
        None, description="words from which on a prompt says all, where no parser tells; null: none does"
    )
