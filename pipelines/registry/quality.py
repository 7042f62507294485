"""What was measured of a registered model, and by which protocol: what the gate and `models` compare.

A number is compared only with one of the same protocol. It is stored as a tag of the registered version, and
read tolerantly: what another version of this project registered has fewer or more numbers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from components.evaluation.metrics import METRICS
from components.evaluation.results import (
    PROMPTS_DIGEST,
    REFERENCE_DIGEST,
    SECONDS,
    STUDENT,
    TEACHER,
    UPSAMPLED_SECONDS,
    Metrics,
    comparable,
)
from pipelines.errors import ConfigError
from pipelines.store.receipts import Receipt, canonical_json, json_digest

MODELS = ("train", "distill")  # inputs of evaluate that are measured; the others do the measuring
PROMPT_FOLLOWING, PROMPT_FOLLOWING_AS_IS = "prompt_following", "prompt_following_as_is"
LOW, HIGH = "_low", "_high"  # after one of these: the ends of its 95% interval
INTERVALS = tuple(
    f"{name}{end}" for name in (PROMPT_FOLLOWING, PROMPT_FOLLOWING_AS_IS) for end in (LOW, HIGH)
)
SHARE_OF_TEACHER, SHARE_OF_TEACHER_AS_IS = "share_of_teacher", "share_of_teacher_as_is"
COVERAGE, COVERAGE_EXCESS = "coverage", "coverage_excess"  # the distance, and what of it is above its floor
TIMINGS = (SECONDS, UPSAMPLED_SECONDS)
NUMBERS = tuple(
    dict.fromkeys(
        (
            PROMPT_FOLLOWING,
            PROMPT_FOLLOWING_AS_IS,
            *INTERVALS,
            SHARE_OF_TEACHER,
            SHARE_OF_TEACHER_AS_IS,
            COVERAGE_EXCESS,
            *(metric.name for metric in METRICS),
            *TIMINGS,
        )
    )
)


@dataclass(frozen=True)
class Quality:
    """What was measured of one model at one number of steps, and by which protocol.

    numbers: by name (see NUMBERS); one that is absent was not measured. prompts: digest of the prompts and
    how they are scored. reference: of that, the judge and the images that Fréchet is measured against.
    Numbers compare only where the digest is the same. note: what another version of this project wrote
    differently.
    """

    steps: int | None
    numbers: Mapping[str, float]
    prompts: str
    reference: str
    note: str = field(default="", compare=False)

    @property
    def protocol(self) -> dict[str, str]:
        """Its two digests, as metrics.json names them."""
        return {PROMPTS_DIGEST: self.prompts, REFERENCE_DIGEST: self.reference}

    def same_protocol(self, other: "Quality", digest: Literal["prompts", "reference"]) -> bool:
        """Whether numbers that depend on this digest may be compared; without one, with none."""
        return comparable(self.protocol, other.protocol, f"{digest}_digest")

    def as_dict(self, *, timings: bool = True) -> dict[str, Any]:
        """Flat, with null for what was not measured. timings: with the seconds, which no two runs share."""
        names = dict.fromkeys([*NUMBERS, *self.numbers])
        numbers = {name: self.numbers.get(name) for name in names if timings or name not in TIMINGS}
        return {"steps": self.steps, **numbers, "prompts": self.prompts, "reference": self.reference}

    def to_json(self) -> str:
        return canonical_json(self.as_dict())

    @staticmethod
    def from_json(text: str) -> "Quality":
        """Read what `to_json` wrote, of this version or another: fewer or more fields are said in `note`.

        Raises ValueError where it is no JSON object.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("not a JSON object")
        known = ("steps", "prompts", "reference", *NUMBERS)
        missing = [name for name in known if name not in fields]
        unknown = [name for name in fields if name not in known]
        notes = [f"no {', '.join(missing)}"] * bool(missing) + [f"also {', '.join(unknown)}"] * bool(unknown)
        steps = fields.get("steps")
        return Quality(
            steps=steps if isinstance(steps, int) else None,
            numbers={
                name: float(value)
                for name, value in fields.items()
                if name != "steps" and isinstance(value, int | float)
            },
            prompts=str(fields.get("prompts") or ""),
            reference=str(fields.get("reference") or ""),
            note=f"its metrics are of another version of Straightshot ({'; '.join(notes)})" if notes else "",
        )


def quality_of(metrics: Metrics, receipt: Receipt, steps: int) -> Quality:
    """The student's quality at `steps`, from evaluate's metrics and receipt.

    Raises ConfigError if the evaluation did not measure that number of steps.
    """
    student = metrics.of(STUDENT, steps)
    if student is None:
        measured = sorted(e.steps for e in metrics.evaluations if e.model == STUDENT)
        raise ConfigError(
            f"promote.steps={steps}: evaluate measured the student at {measured} steps only; choose one of"
            f" them, or have evaluate measure {steps}"
        )
    teachers = [e for e in metrics.evaluations if e.model == TEACHER]
    ends = {
        f"{name}{end}": value
        for name, interval in student.intervals.items()
        for end, value in ((LOW, interval.low), (HIGH, interval.high))
    }
    numbers = {
        PROMPT_FOLLOWING: student.mean,
        PROMPT_FOLLOWING_AS_IS: student.mean_as_is,
        **ends,
        SHARE_OF_TEACHER: _share(student.mean, [e.mean for e in teachers]),
        SHARE_OF_TEACHER_AS_IS: _share(student.mean_as_is, [e.mean_as_is for e in teachers]),
        COVERAGE_EXCESS: metrics.above_floor(student, COVERAGE),
        **student.metrics,
        SECONDS: student.seconds_per_image,
        UPSAMPLED_SECONDS: student.seconds_per_image_upsampled,
    }
    prompts, reference = _protocol(metrics, receipt)
    measured_numbers = {name: value for name, value in numbers.items() if value is not None}
    return Quality(steps, measured_numbers, prompts, reference)


def _share(student: float | None, teachers: list[float | None]) -> float | None:
    """Of the best teacher's; None where either was not measured, or no teacher drew anything right."""
    best = max((mean for mean in teachers if mean), default=None)
    return student / best if best is not None and student is not None else None


def _protocol(metrics: Metrics, receipt: Receipt) -> tuple[str, str]:
    """Digests of evaluate's prompts, and of all that measures: what two evaluations must share to compare.

    Where metrics.json and the receipt have none: of evaluate's config, and of its inputs that are no models.
    """
    named = {**receipt.info, **metrics.protocol}
    settings = {"version": receipt.version, "config": receipt.config}
    inputs = {name: digests for name, digests in receipt.inputs.items() if name not in MODELS}
    return (
        str(named.get(PROMPTS_DIGEST) or json_digest(settings)),
        str(named.get(REFERENCE_DIGEST) or json_digest({**settings, "inputs": inputs})),
    )
