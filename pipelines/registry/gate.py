"""The gate: whether a model may become champion.

Pure: numbers in, checks with a verdict out. A stricter gate is one entry of RULES and its limit in
GateConfig. A number that was not measured (no scorer covers an open corpus, so it has no prompt following)
makes its check `skipped`, never passed or failed. A champion that the candidate cannot be compared with, or
a gate that checks nothing, refuses: nobody is replaced unseen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

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
CHAMPION_RIVAL = "the champion"  # how messages name it


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

THRESHOLDS = tuple(rule for rule in RULES if rule.against_champion is None)
COMPARISONS = tuple(rule for rule in RULES if rule.against_champion is not None)


@dataclass(frozen=True)
class Rival:
    """A model that a candidate is compared with. name: as messages have it, such as "the champion".

    differences: by mode, the interval of (candidate - rival) over the same prompts, where both models'
    verdicts are at hand (verdicts.differences). unreadable: why there is no quality.
    """

    name: str
    quality: Quality | None
    differences: Callable[[], Mapping[str, "Interval"]] = dict
    unreadable: str = ""


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


def decide(
    candidate: Quality,
    champion: Rival | None,
    config: GateConfig,
    *,
    earlier: Sequence[Rival] = (),
    first: bool = False,
) -> Decision:
    """Apply every rule: the thresholds first, then the comparison with the champion and the best before it.

    champion: None where there never was one, and nothing can be made worse. earlier: champions before it; the
    best of them by a rule's number counts like the champion, so that small drops do not add up. first: accept
    a model that cannot be compared with the champion, as the first of its protocol.
    """
    checks = [check for rule in THRESHOLDS if (check := _threshold(rule, candidate, config)) is not None]
    if champion is None:
        checks.append(Check("champion", None, NO_CHAMPION))
    elif reason := _incomparable(candidate, champion):
        checks.append(Check("champion", None if first else False, reason))
    else:
        for rule in COMPARISONS:
            best = _best(rule, candidate, earlier)
            rivals = (
                (champion, best) if best is not None and best.quality != champion.quality else (champion,)
            )
            checks += [c for rival in rivals if (c := _against(rule, candidate, rival, config)) is not None]
        if all(check.passed is None for check in checks):
            text = "the gate checks nothing that was measured of both models"
            checks.append(Check("comparison", None if first else False, text))
    return Decision(candidate, champion.quality if champion else None, tuple(checks))


def _threshold(rule: Rule, candidate: Quality, config: GateConfig) -> Check | None:
    limit = getattr(config, rule.setting)
    return None if limit is None else _bounded(rule, rule.name, candidate, limit)


def _incomparable(candidate: Quality, champion: Rival) -> str:
    """Why the two cannot be compared at all; empty where they can."""
    if champion.quality is None:
        return champion.unreadable
    if candidate.steps == champion.quality.steps and candidate.same_protocol(champion.quality, "prompts"):
        return ""
    return "the champion was measured on other prompts or steps, so nothing tells which is better"


def _best(rule: Rule, candidate: Quality, earlier: Sequence[Rival]) -> Rival | None:
    """The best of the earlier champions by this rule's number, of those measured like the candidate."""
    measured = [
        (rival.quality.numbers[rule.number], rival)
        for rival in earlier
        if rival.quality is not None
        and rival.quality.steps == candidate.steps
        and rival.quality.same_protocol(candidate, "prompts")
        and rival.quality.same_protocol(candidate, rule.protocol)
        and rule.number in rival.quality.numbers
    ]
    choose = max if rule.bound == "at least" else min
    return choose(measured, key=lambda pair: pair[0])[1] if measured else None


def _against(rule: Rule, candidate: Quality, rival: Rival, config: GateConfig) -> Check | None:
    """One rule against one other model, whose quality is known and comparable."""
    limit = getattr(config, rule.setting)
    if limit is None:
        return None
    difference = rival.differences().get(rule.mode) if rule.mode else None
    if difference is not None:
        return _paired(rule, candidate, rival, difference, limit)
    return _by_numbers(rule, candidate, rival, limit)


def _paired(rule: Rule, candidate: Quality, rival: Rival, difference: "Interval", most: float) -> Check:
    """Fails where the candidate is worse for certain, or on average by more than `most`."""
    assert rival.quality is not None
    worse, dropped = difference.high < 0, difference.mean < -most
    numbers = [f"{model.numbers.get(rule.number, float('nan')):.3f}" for model in (candidate, rival.quality)]
    interval = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    says = f"a drop of more than {most:.3f}" if dropped else "certainly worse" if worse else "no drop"
    text = f"{rule.label} {numbers[0]}, {rival.name}'s {numbers[1]}: {interval} in pairs, {says}"
    return Check(_name(rule, rival), not (worse or dropped), f"{text} ({rule.setting} {most:g})")


def _by_numbers(rule: Rule, candidate: Quality, rival: Rival, setting: float) -> Check | None:
    assert rival.quality is not None and rule.against_champion is not None
    number = rival.quality.numbers.get(rule.number)
    if number is None and rule.number not in candidate.numbers:
        return None
    name = _name(rule, rival)
    if number is None:
        return Check(name, None, f"{rival.name}'s {rule.label} was not measured")
    if not candidate.same_protocol(rival.quality, rule.protocol):
        text = f"{rival.name}'s {rule.label} was measured by another judge or on other images"
        return Check(name, None, text)
    note = f"; {rival.name} has {number:{rule.number_format}}"
    return _bounded(rule, name, candidate, rule.against_champion(number, setting), note)


def _bounded(rule: Rule, name: str, candidate: Quality, limit: float, note: str = "") -> Check:
    value = candidate.numbers.get(rule.number)
    if value is None:
        return Check(name, None, f"{rule.label} was not measured ({rule.setting} is not checked)")
    least = rule.bound == "at least"
    passed = value >= limit if least else value <= limit
    sign = ("≥" if passed else "<") if least else ("≤" if passed else ">")
    numbers = f"{value:{rule.number_format}} {sign} {limit:{rule.number_format}}"
    return Check(name, passed, f"{rule.label} {numbers} ({rule.setting}{note})")


def _name(rule: Rule, rival: Rival) -> str:
    """Of a check against the champion, or against the best before it."""
    return rule.name if rival.name == CHAMPION_RIVAL else f"{rule.name}_from_best"
