"""The blend: which caption of a record a training step sees.

Captions are all stored and drawn at sampling time (Betker 2023, section 4.1), so a run can change its blend
without a new corpus. The draw is a pure function of (seed, key, epoch): a resumed run sees the same text.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple, Self

from pydantic import ConfigDict, Field, RootModel, model_validator

from components.captioning.kinds import caption_columns, default_shares
from components.errors import InputError
from components.randomness import derive_seed


class Blend(RootModel[dict[str, float]]):
    """The share of each kind of caption, by name, between 0 and 1; they add up to 1.

    A kind that is not named has its default share (components/captioning/kinds.py).
    """

    model_config = ConfigDict(frozen=True)
    root: dict[str, float] = Field(default_factory=default_shares)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, shares: Any) -> Any:
        return {**default_shares(), **shares} if isinstance(shares, Mapping) else shares

    @model_validator(mode="after")
    def _check(self) -> Self:
        unknown = self.root.keys() - caption_columns()
        if unknown:
            known = ", ".join(caption_columns())
            raise InputError(f"blend: no kind of caption is named '{min(unknown)}'; there are {known}")
        shares = list(self.root.values())
        if not all(isfinite(share) and share >= 0 for share in shares):
            raise InputError(f"blend: shares must be 0 or more, got {self.root}")
        if abs(sum(shares) - 1) > 1e-6:
            raise InputError(f"blend: {' + '.join(self.root)} must be 1, got {sum(shares):g}")
        return self

    def share(self, kind: str) -> float:
        """The share of one kind; 0 for one that is not named."""
        return self.root.get(kind, 0.0)


class DrawnCaption(NamedTuple):
    """The caption one training step sees."""

    kind: str  # "alt", "short", …; "" where the record has no caption at all
    text: str


def draw_caption(
    blend: Blend, captions: Mapping[str, str | None], seed: int, key: str, epoch: int
) -> DrawnCaption:
    """Draw one of `captions` (by kind) in the blend's shares; a pure function of its arguments.

    A kind that the record lacks (absent, null or empty) gives its share to the others in proportion; where
    every share left is 0, the first caption that exists is taken, and a record without any gives "".
    """
    kinds = caption_columns()
    present = [(kind, text, blend.share(kind)) for kind in kinds if (text := captions.get(kind))]
    if not present:
        return DrawnCaption("", "")
    point = derive_seed(seed, "caption", key, epoch) / 2**63 * sum(weight for *_, weight in present)
    for kind, text, weight in present:
        if point < weight:
            return DrawnCaption(kind, text)
        point -= weight
    # Every share is 0, or rounding left the point on the upper edge: the last kind that has a share.
    kind, text, _ = next((entry for entry in reversed(present) if entry[2] > 0), present[0])
    return DrawnCaption(kind, text)
