"""The gate: whether a model may become champion.

Pure: numbers in, checks with a verdict out. A stricter gate is one entry of RULES and its limit in
GateConfig. A number that was not measured (no scorer covers an open corpus, so it has no prompt following)
makes its check `skipped`, never passed or failed.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import Field, ValidationError

from components.evaluation.metrics import METRICS
from components.evaluation.results import SECONDS, Metrics
from pipelines.errors import ConfigError
from pipelines.stage import StageConfig
from pipelines.store.receipts import Receipt, canonical_json, json_digest

MODELS = ("train", "distill")  # inputs of evaluate that are measured; the others do the measuring
PROMPT_FOLLOWING, SHARE_OF_TEACHER = "prompt_following", "share_of_teacher"
NUMBERS = (PROMPT_FOLLOWING, SHARE_OF_TEACHER, *(metric.name for metric in METRICS), SECONDS)
NO_CHAMPION = "no champion to compare with"


class GateConfig(StageConfig):
    """What a model must reach. Prompt following is a share (0..1); a limit of None is not checked."""

    steps: int = Field(1, ge=1)  # the student's number of steps that is judged and served by default
    min_prompt_following: float | None = Field(0.5, ge=0, le=1)  # share, mean over categories
    min_share_of_teacher: float | None = Field(None, ge=0)  # of the teacher's prompt following
    max_frechet: float | None = Field(None, ge=0)  # squared distance in the judge's features
    max_drop: float | None = Field(0.02, ge=0, le=1)  # of prompt following, below the champion's
    max_frechet_rise: float | None = Field(0.25, ge=0)  # as a share of the champion's


@dataclass(frozen=True)
class Rule:
    """One check: a number of the candidate is at least, or at most, a limit."""

    setting: str  # the field of GateConfig that holds the limit, and the check's name
    number: str  # of Quality.numbers
    label: str  # of that number, in messages
    number_format: str
    bound: Literal["at least", "at most"]
    # Of a rule against the champion: (its number, the setting) -> the limit, and the digest both must share.
    against_champion: Callable[[float, float], float] | None = None
    protocol: Literal["prompts", "reference"] = "prompts"


RULES = (
    Rule("min_prompt_following", PROMPT_FOLLOWING, "prompt following", ".3f", "at least"),
    Rule("min_share_of_teacher", SHARE_OF_TEACHER, "share of the teacher's", ".3f", "at least"),
    Rule("max_frechet", "frechet", "Fréchet distance", ".4g", "at most"),
    Rule(
        "max_drop",
        PROMPT_FOLLOWING,
        "prompt following",
        ".3f",
        "at least",
        against_champion=lambda champion, drop: champion - drop,
    ),
    Rule(
        "max_frechet_rise",
        "frechet",
        "Fréchet distance",
        ".4g",
        "at most",
        against_champion=lambda champion, rise: champion * (1 + rise),
        protocol="reference",
    ),
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

    def as_dict(self, *, timings: bool = True) -> dict[str, Any]:
        """Flat, with null for what was not measured. timings: with the seconds, which no two runs share."""
        names = dict.fromkeys([*NUMBERS, *self.numbers])
        numbers = {name: self.numbers.get(name) for name in names if timings or name != SECONDS}
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


@dataclass(frozen=True)
class Check:
    """One rule applied. passed is None when it could not be; `text` says it with its numbers."""

    name: str
    passed: bool | None
    text: str

    @property
    def failed(self) -> bool:
        return self.passed is False


@dataclass(frozen=True)
class Decision:
    """The gate's verdict on one model, beside the champion it was compared with."""

    candidate: Quality
    champion: Quality | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return not any(check.failed for check in self.checks)

    @property
    def refusal(self) -> str:
        """The failed checks in one line."""
        return "; ".join(check.text for check in self.checks if check.failed)

    def as_dict(self) -> dict[str, Any]:
        """For decision.json: no seconds, so that the same models give the same bytes."""
        return {
            "verdict": "promoted" if self.passed else "refused",
            "candidate": self.candidate.as_dict(timings=False),
            "champion": self.champion.as_dict(timings=False) if self.champion else None,
            "checks": [asdict(check) for check in self.checks],
        }


def read_gate(text: str) -> tuple[GateConfig | None, str]:
    """A registered gate, and a note: empty, or what of it cannot be read and so is not checked."""
    try:
        fields = json.loads(text)
        unknown = sorted(set(fields) - set(GateConfig.model_fields))
        known = {name: value for name, value in fields.items() if name not in unknown}
        gate = GateConfig.model_validate(known)
    except (ValidationError, ValueError, TypeError, AttributeError):
        return None, "its gate cannot be read, so the default one is used"
    return gate, f"its gate also has {', '.join(unknown)}, not checked by this version" if unknown else ""


def quality_of(metrics: Metrics, receipt: Receipt, steps: int) -> Quality:
    """The student's quality at `steps`, from evaluate's metrics and receipt.

    Raises ConfigError if the evaluation did not measure that number of steps.
    """
    student = metrics.of("student", steps)
    if student is None:
        measured = sorted(e.steps for e in metrics.evaluations if e.model == "student")
        raise ConfigError(
            f"promote.steps={steps}: evaluate measured the student at {measured} steps only; choose one of"
            f" them, or have evaluate measure {steps}"
        )
    teachers = [e.mean for e in metrics.evaluations if e.model == "teacher" and e.mean]
    share = student.mean / max(teachers) if teachers and student.mean is not None else None
    numbers = {
        PROMPT_FOLLOWING: student.mean,
        SHARE_OF_TEACHER: share,
        **student.metrics,
        SECONDS: student.seconds_per_image,
    }
    prompts, reference = _protocol(metrics, receipt)
    measured_numbers = {name: value for name, value in numbers.items() if value is not None}
    return Quality(steps, measured_numbers, prompts, reference)


def decide(
    candidate: Quality, champion: Quality | None, config: GateConfig, *, no_champion: str = NO_CHAMPION
) -> Decision:
    """Apply every rule: the thresholds first, then the comparison with the champion.

    no_champion: why there is none to compare with, where `champion` is None.
    """
    checks = [_threshold(rule, candidate, config) for rule in RULES if rule.against_champion is None]
    checks += _compared(candidate, champion, config, no_champion)
    return Decision(candidate, champion, tuple(check for check in checks if check is not None))


def _threshold(rule: Rule, candidate: Quality, config: GateConfig) -> Check | None:
    limit = getattr(config, rule.setting)
    return None if limit is None else _bounded(rule, candidate, limit)


def _compared(
    candidate: Quality, champion: Quality | None, config: GateConfig, no_champion: str
) -> Iterable[Check | None]:
    if champion is None:
        yield Check("champion", None, no_champion)
        return
    if candidate.steps != champion.steps or not _same_protocol("prompts", candidate, champion):
        text = "the champion was measured on other prompts or steps: compared with the thresholds only"
        yield Check("champion", None, text)
        return
    for rule in RULES:
        if rule.against_champion is not None:
            yield _against_champion(rule, rule.against_champion, candidate, champion, config)


def _against_champion(
    rule: Rule,
    limit: Callable[[float, float], float],
    candidate: Quality,
    champion: Quality,
    config: GateConfig,
) -> Check | None:
    setting, number = getattr(config, rule.setting), champion.numbers.get(rule.number)
    if setting is None or (number is None and rule.number not in candidate.numbers):
        return None
    if number is None:
        return Check(rule.setting, None, f"the champion's {rule.label} was not measured")
    if not _same_protocol(rule.protocol, candidate, champion):
        text = f"the champion's {rule.label} was measured by another judge or on other images"
        return Check(rule.setting, None, text)
    note = f"; the champion has {number:{rule.number_format}}"
    return _bounded(rule, candidate, limit(number, setting), note)


def _bounded(rule: Rule, candidate: Quality, limit: float, note: str = "") -> Check:
    value = candidate.numbers.get(rule.number)
    if value is None:
        return Check(rule.setting, None, f"{rule.label} was not measured ({rule.setting} is not checked)")
    least = rule.bound == "at least"
    passed = value >= limit if least else value <= limit
    sign = ("≥" if passed else "<") if least else ("≤" if passed else ">")
    numbers = f"{value:{rule.number_format}} {sign} {limit:{rule.number_format}}"
    return Check(rule.setting, passed, f"{rule.label} {numbers} ({rule.setting}{note})")


def _same_protocol(digest: str, candidate: Quality, champion: Quality) -> bool:
    """Whether both have the same digest; one of another version may have none, and compares with nothing."""
    return bool(getattr(candidate, digest)) and getattr(candidate, digest) == getattr(champion, digest)


def _protocol(metrics: Metrics, receipt: Receipt) -> tuple[str, str]:
    """Digests of evaluate's prompts, and of all that measures: what two evaluations must share to compare.

    Where metrics.json and the receipt have none: of evaluate's config, and of its inputs that are no models.
    """
    named = {**receipt.info, **metrics.protocol}
    settings = {"version": receipt.version, "config": receipt.config}
    inputs = {name: digests for name, digests in receipt.inputs.items() if name not in MODELS}
    return (
        str(named.get("prompts_digest") or json_digest(settings)),
        str(named.get("reference_digest") or json_digest({**settings, "inputs": inputs})),
    )
