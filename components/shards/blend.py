"""The blend: which caption of a record a training step sees.

Captions are all stored and drawn at sampling time (Betker 2023, section 4.1), so a run can change its blend
without a new corpus. The draw is a pure function of (seed, key, epoch): a resumed run sees the same text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

from components.randomness import derive_seed

KINDS = ("alt", "short", "long")


@dataclass(frozen=True)
class Blend:
    """The share of each kind of caption, between 0 and 1; they add up to 1. DALL·E 3: 95% synthetic."""

    alt: float = 0.05
    short: float = 0.475
    long: float = 0.475

    def __post_init__(self) -> None:
        weights = (self.alt, self.short, self.long)
        if not all(isfinite(weight) and weight >= 0 for weight in weights):
            raise ValueError(f"blend: shares must be 0 or more, got {weights}")
        if abs(sum(weights) - 1) > 1e-6:
            raise ValueError(f"blend: alt + short + long must be 1, got {sum(weights):g}")


class DrawnCaption(NamedTuple):
    """The caption one training step sees."""

    kind: str  # "alt", "short", "long"; "" where the record has no caption at all
    text: str


def draw_caption(
    blend: Blend, captions: Mapping[str, str | None], seed: int, key: str, epoch: int
) -> DrawnCaption:
    """Draw one of `captions` (keys of KINDS) in the blend's shares; a pure function of its arguments.

    A kind that the record lacks (absent, null or empty) gives its share to the others in proportion; where
    every share left is 0, the first caption that exists is taken, and a record without any gives "".
    """
    present = [(kind, text, getattr(blend, kind)) for kind in KINDS if (text := captions.get(kind))]
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
