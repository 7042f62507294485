"""Measured models in groups that may be compared: `models` and the report's page show them like this.

A group shares the digest of its prompts and the number of steps. The Fréchet distance depends on more, on the
judge and the reference images: it is shown of those only that share these with the newest of their group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from components.evaluation.results import PROMPTS_DIGEST, REFERENCE_DIGEST
from pipelines.registry.journal import STEPS, Change
from pipelines.registry.quality import (
    COVERAGE_EXCESS,
    HIGH,
    LOW,
    PROMPT_FOLLOWING,
    PROMPT_FOLLOWING_AS_IS,
    Quality,
)

NONE = "–"  # not measured
FRECHET = "frechet"
DIGEST_SHOWN = 12  # hex digits of a protocol
COLUMNS = ("exact", "95%", "as is", "95%", "coverage +", "Fréchet")
LEGEND = (
    "exact: the share of images that show all of the prompt and nothing else, by the default command; as is:"
    " the same of prompts as they are; coverage +: the distance above its floor"
)


@dataclass(frozen=True)
class MeasuredModel:
    """A model, by the cells that say which and when, and what was measured of it."""

    cells: tuple[str, ...]
    quality: Quality | None


@dataclass(frozen=True)
class ComparedGroup:
    """Models whose numbers may be compared; each row is a model's own cells, then one of each of COLUMNS.

    prompts: their digest; empty where a model names none, and compares with nothing.
    """

    prompts: str
    steps: int | None
    rows: tuple[tuple[str, ...], ...]
    note: str = ""  # where another version of this project measured them

    @property
    def title(self) -> str:
        """How it was measured, in a few words."""
        if self.steps is None and not self.prompts:
            return "Not measured, or not known how"
        protocol = f"protocol {self.prompts[:DIGEST_SHOWN]}" if self.prompts else "no known protocol"
        steps = "unknown steps" if self.steps is None else f"{self.steps} step{'s' * (self.steps != 1)}"
        return f"Measured by {protocol}, {steps}{self.note}"


def compared(models: Sequence[MeasuredModel]) -> list[ComparedGroup]:
    """The models in groups, each in the order given: the newest first."""
    groups: dict[tuple[str, int | None], list[MeasuredModel]] = {}
    for number, model in enumerate(models):
        quality = model.quality
        key: tuple[str, int | None] = ("", None)  # nothing was measured
        if quality is not None:
            key = (quality.prompts or f"alone {number}", quality.steps)
        groups.setdefault(key, []).append(model)
    return [_group(members) for members in groups.values()]


def quality_of_change(change: Change) -> Quality:
    """What an entry of the journal says of its model."""
    steps = change.protocol.get(STEPS)
    return Quality(
        steps if isinstance(steps, int) else None,
        change.metrics,
        str(change.protocol.get(PROMPTS_DIGEST) or ""),
        str(change.protocol.get(REFERENCE_DIGEST) or ""),
    )


def _group(members: Sequence[MeasuredModel]) -> ComparedGroup:
    first = members[0].quality
    rows = tuple((*model.cells, *_numbers(model.quality, first)) for model in members)
    if first is None:
        return ComparedGroup("", None, rows)
    note = ", by another version of Straightshot" if first.note else ""
    return ComparedGroup(first.prompts, first.steps, rows, note)


def _numbers(quality: Quality | None, newest: Quality | None) -> list[str]:
    if quality is None or newest is None:
        return [NONE] * len(COLUMNS)
    comparable = quality is newest or quality.same_protocol(newest, "reference")
    return [
        _share(quality, PROMPT_FOLLOWING),
        _interval(quality, PROMPT_FOLLOWING),
        _share(quality, PROMPT_FOLLOWING_AS_IS),
        _interval(quality, PROMPT_FOLLOWING_AS_IS),
        _share(quality, COVERAGE_EXCESS),
        f"{quality.numbers[FRECHET]:.4g}" if comparable and FRECHET in quality.numbers else NONE,
    ]


def _share(quality: Quality, name: str) -> str:
    return f"{quality.numbers[name]:.3f}" if name in quality.numbers else NONE


def _interval(quality: Quality, name: str) -> str:
    low, high = (quality.numbers.get(f"{name}{end}") for end in (LOW, HIGH))
    return NONE if low is None or high is None else f"{low:.3f}–{high:.3f}"
