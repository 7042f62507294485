"""The gate: whether a model may become champion.

Pure: numbers in, checks with a verdict out. A stricter gate is one entry of RULES and its limit in
GateConfig. A number that was not measured (no scorer covers an open corpus, so it has no prompt following)
makes its check `skipped`, never passed or failed.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from pipelines.registry.quality import (
    COVERAGE_EXCESS,
    PROMPT_FOLLOWING,
    PROMPT_FOLLOWING_AS_IS,
    SHARE_OF_TEACHER,
    SHARE_OF_TEACHER_AS_IS,
    Quality,
)
from pipelines.registry.verdicts import AS_IS, DEFAULT
from pipelines.stage import StageConfig

if TYPE_CHECKING:
    from components.evaluation.bootstrap import Interval

NO_CHAMPION = "no champion to compare with"


class GateConfig(StageConfig):
    """What a model must reach. Prompt following is a share of images, every statement of whose prompt holds
    and that show nothing else (0..1, the mean of the forms of prompts); a limit of None is not checked.
    """

    steps: int = Field(1, ge=1)  # the student's number of steps that is judged and served by default
    min_prompt_following: float | None = Field(0.5, ge=0, le=1)  # by the default command: prompts upsampled
    min_prompt_following_as_is: float | None = Field(0.3, ge=0, le=1)  # prompts as they are
    min_share_of_teacher: float | None = Field(None, ge=0)  # of the teacher's, by default and as is
    max_coverage_excess: float | None = Field(0.15, ge=0, le=1)  # total variation distance above its floor
    max_frechet: float | None = Field(None, ge=0)  # squared distance in the judge's features
    # Of prompt following, below the champion's; a drop that is certain (95%) is refused however small.
    max_drop: float | None = Field(0.02, ge=0, le=1)
    max_frechet_rise: float | None = Field(0.25, ge=0)  # as a share of the champion's


@dataclass(frozen=True)
class Rule:
    """One check: a number of the candidate is at least, or at most, a limit."""

    name: str  # of the check
    setting: str  # the field of GateConfig that holds the limit
    number: str  # of Quality.numbers
    label: str  # of that number, in messages
    number_format: str
    bound: Literal["at least", "at most"]
    # Of a rule against the champion: (its number, the setting) -> the limit, and the digest both must share.
    against_champion: Callable[[float, float], float] | None = None
    protocol: Literal["prompts", "reference"] = "prompts"
    mode: str = ""  # whose verdicts, prompt by prompt, decide instead where both models have them


def _below(champion: float, drop: float) -> float:
    return champion - drop


def _above(champion: float, rise: float) -> float:
    return champion * (1 + rise)


FOLLOWING, FOLLOWING_AS_IS = "prompt following", "prompt following as is"
RULES = (
    Rule("min_prompt_following", "min_prompt_following", PROMPT_FOLLOWING, FOLLOWING, ".3f", "at least"),
    Rule(
        "min_prompt_following_as_is",
        "min_prompt_following_as_is",
        PROMPT_FOLLOWING_AS_IS,
        FOLLOWING_AS_IS,
        ".3f",
        "at least",
    ),
    Rule(
        "min_share_of_teacher",
        "min_share_of_teacher",
        SHARE_OF_TEACHER,
        "share of the teacher's",
        ".3f",
        "at least",
    ),
    Rule(
        "min_share_of_teacher_as_is",
        "min_share_of_teacher",
        SHARE_OF_TEACHER_AS_IS,
        "share of the teacher's as is",
        ".3f",
        "at least",
    ),
    Rule(
        "max_coverage_excess",
        "max_coverage_excess",
        COVERAGE_EXCESS,
        "coverage distance above its floor",
        ".3f",
        "at most",
    ),
    Rule("max_frechet", "max_frechet", "frechet", "Fréchet distance", ".4g", "at most"),
    Rule("max_drop", "max_drop", PROMPT_FOLLOWING, FOLLOWING, ".3f", "at least", _below, mode=DEFAULT),
    Rule(
        "max_drop_as_is",
        "max_drop",
        PROMPT_FOLLOWING_AS_IS,
        FOLLOWING_AS_IS,
        ".3f",
        "at least",
        _below,
        mode=AS_IS,
    ),
    Rule(
        "max_frechet_rise",
        "max_frechet_rise",
        "frechet",
        "Fréchet distance",
        ".4g",
        "at most",
        _above,
        protocol="reference",
    ),
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


def decide(
    candidate: Quality,
    champion: Quality | None,
    config: GateConfig,
    *,
    differences: Mapping[str, "Interval"] | None = None,
    no_champion: str = NO_CHAMPION,
) -> Decision:
    """Apply every rule: the thresholds first, then the comparison with the champion.

    differences: by mode, the interval of (candidate - champion) over the same prompts, where both models'
    verdicts are at hand (verdicts.differences). no_champion: why there is none, where `champion` is None.
    """
    checks = [_threshold(rule, candidate, config) for rule in RULES if rule.against_champion is None]
    checks += _compared(candidate, champion, config, differences or {}, no_champion)
    return Decision(candidate, champion, tuple(check for check in checks if check is not None))


def _threshold(rule: Rule, candidate: Quality, config: GateConfig) -> Check | None:
    limit = getattr(config, rule.setting)
    return None if limit is None else _bounded(rule, candidate, limit)


def _compared(
    candidate: Quality,
    champion: Quality | None,
    config: GateConfig,
    differences: Mapping[str, "Interval"],
    no_champion: str,
) -> Iterable[Check | None]:
    if champion is None:
        yield Check("champion", None, no_champion)
        return
    if candidate.steps != champion.steps or not candidate.same_protocol(champion, "prompts"):
        text = "the champion was measured on other prompts or steps: compared with the thresholds only"
        yield Check("champion", None, text)
        return
    for rule in RULES:
        if rule.against_champion is None:
            continue
        limit = getattr(config, rule.setting)
        if limit is not None and rule.mode in differences:
            yield _paired(rule, candidate, champion, differences[rule.mode], limit)
        elif limit is not None:
            yield _against_champion(rule, rule.against_champion, candidate, champion, limit)


def _paired(rule: Rule, candidate: Quality, champion: Quality, difference: "Interval", most: float) -> Check:
    """Fails where the candidate is worse for certain, or on average by more than `most`."""
    worse, dropped = difference.high < 0, difference.mean < -most
    numbers = [f"{model.numbers.get(rule.number, float('nan')):.3f}" for model in (candidate, champion)]
    interval = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    says = f"a drop of more than {most:.3f}" if dropped else "certainly worse" if worse else "no drop"
    text = f"{rule.label} {numbers[0]}, the champion's {numbers[1]}: {interval} in pairs, {says}"
    return Check(rule.name, not (worse or dropped), f"{text} ({rule.setting} {most:g})")


def _against_champion(
    rule: Rule,
    limit: Callable[[float, float], float],
    candidate: Quality,
    champion: Quality,
    setting: float,
) -> Check | None:
    number = champion.numbers.get(rule.number)
    if number is None and rule.number not in candidate.numbers:
        return None
    if number is None:
        return Check(rule.name, None, f"the champion's {rule.label} was not measured")
    if not candidate.same_protocol(champion, rule.protocol):
        text = f"the champion's {rule.label} was measured by another judge or on other images"
        return Check(rule.name, None, text)
    note = f"; the champion has {number:{rule.number_format}}"
    return _bounded(rule, candidate, limit(number, setting), note)


def _bounded(rule: Rule, candidate: Quality, limit: float, note: str = "") -> Check:
    value = candidate.numbers.get(rule.number)
    if value is None:
        return Check(rule.name, None, f"{rule.label} was not measured ({rule.setting} is not checked)")
    least = rule.bound == "at least"
    passed = value >= limit if least else value <= limit
    sign = ("≥" if passed else "<") if least else ("≤" if passed else ">")
    numbers = f"{value:{rule.number_format}} {sign} {limit:{rule.number_format}}"
    return Check(rule.name, passed, f"{rule.label} {numbers} ({rule.setting}{note})")
