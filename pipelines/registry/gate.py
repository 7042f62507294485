"""The gate: whether a model may become champion.

Pure: numbers in, checks with a verdict out. A number that was not measured (a corpus whose world no scorer
knows has no prompt following) makes its check `skipped`, never passed or failed.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import Field

from components.evaluation.results import Metrics
from pipelines.errors import ConfigError
from pipelines.stage import StageConfig
from pipelines.store.receipts import Receipt, canonical_json

MODELS = ("train", "distill")  # inputs of evaluate that are measured; the others do the measuring


class GateConfig(StageConfig):
    """What a model must reach. Prompt following is a share (0..1); a limit of None is not checked."""

    steps: int = Field(1, ge=1)  # the student's number of steps that is judged and served by default
    min_prompt_following: float | None = Field(0.5, ge=0, le=1)  # share, mean over categories
    min_share_of_teacher: float | None = Field(None, ge=0)  # of the teacher's prompt following
    max_frechet: float | None = Field(None, ge=0)  # squared distance in the judge's features
    max_drop: float | None = Field(0.02, ge=0, le=1)  # of prompt following, below the champion's
    max_frechet_rise: float | None = Field(0.25, ge=0)  # as a share of the champion's


@dataclass(frozen=True)
class Quality:
    """What was measured of one model at one number of steps, and by which protocol.

    prompts: digest of the prompts and how they are scored. reference: of that, the judge and the images
    that Fréchet is measured against. Numbers compare only where the digest is the same.
    """

    steps: int
    prompt_following: float | None
    share_of_teacher: float | None
    frechet: float
    judge_score: float
    seconds_per_image: float
    prompts: str
    reference: str

    def to_json(self) -> str:
        return canonical_json(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Quality":
        return Quality(**json.loads(text))

    def numbers(self) -> dict[str, float]:
        """The measured numbers by name, for metrics and tables."""
        named = {
            "prompt_following": self.prompt_following,
            "share_of_teacher": self.share_of_teacher,
            "frechet": self.frechet,
            "judge_score": self.judge_score,
            "seconds_per_image": self.seconds_per_image,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Check:
    """One question of the gate. passed is None when it could not be asked; `text` says it with numbers."""

    name: str
    passed: bool | None
    text: str

    @property
    def failed(self) -> bool:
        return self.passed is False


@dataclass(frozen=True)
class Decision:
    """What the gate said of one model, beside the champion it was compared with."""

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
        return {
            "verdict": "promoted" if self.passed else "refused",
            "candidate": asdict(self.candidate),
            "champion": asdict(self.champion) if self.champion else None,
            "checks": [asdict(check) for check in self.checks],
        }


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
    prompts, reference = _yardsticks(receipt)
    return Quality(
        steps=steps,
        prompt_following=student.mean,
        share_of_teacher=share,
        frechet=student.frechet,
        judge_score=student.judge_score,
        seconds_per_image=student.seconds_per_image,
        prompts=prompts,
        reference=reference,
    )


def decide(candidate: Quality, champion: Quality | None, config: GateConfig) -> Decision:
    """Ask every question: the floors first, then the comparison with the champion."""
    following, share = candidate.prompt_following, candidate.share_of_teacher
    checks = [
        _at_least("min_prompt_following", "prompt following", following, config.min_prompt_following),
        _at_least("min_share_of_teacher", "share of the teacher's", share, config.min_share_of_teacher),
        _at_most("max_frechet", candidate.frechet, config.max_frechet),
        *_compared(candidate, champion, config),
    ]
    return Decision(candidate, champion, tuple(check for check in checks if check is not None))


def _compared(candidate: Quality, champion: Quality | None, config: GateConfig) -> Iterable[Check | None]:
    if champion is None:
        yield Check("champion", None, "no champion to compare with")
        return
    if (candidate.prompts, candidate.steps) != (champion.prompts, champion.steps):
        text = "the champion was measured on other prompts or steps: compared with the floors only"
        yield Check("champion", None, text)
        return
    best = champion.prompt_following
    if best is not None and config.max_drop is not None:
        note = f"; the champion has {best:.3f}"
        following = candidate.prompt_following
        yield _at_least("max_drop", "prompt following", following, best - config.max_drop, note)
    if config.max_frechet_rise is not None:
        if candidate.reference == champion.reference:
            note = f"; the champion has {champion.frechet:.4g}"
            ceiling = champion.frechet * (1 + config.max_frechet_rise)
            yield _at_most("max_frechet_rise", candidate.frechet, ceiling, note)
        else:
            text = "the champion's Fréchet distance was measured by another judge or on other images"
            yield Check("max_frechet_rise", None, text)


def _at_least(name: str, what: str, value: float | None, floor: float | None, note: str = "") -> Check | None:
    if floor is None:
        return None
    if value is None:
        return Check(name, None, f"{what} was not measured: no scorer knows this corpus")
    passed = value >= floor
    return Check(name, passed, f"{what} {value:.3f} {'≥' if passed else '<'} {floor:.3f} ({name}{note})")


def _at_most(name: str, value: float, ceiling: float | None, note: str = "") -> Check | None:
    if ceiling is None:
        return None
    passed = value <= ceiling
    sign = "≤" if passed else ">"
    return Check(name, passed, f"Fréchet distance {value:.4g} {sign} {ceiling:.4g} ({name}{note})")


def _yardsticks(receipt: Receipt) -> tuple[str, str]:
    """Digests of evaluate's prompts, and of all that measures: what two evaluations must share to compare.

    evaluate may say them itself (`info`); else they are its config, and its inputs that are no models.
    """
    asked = {"version": receipt.version, "config": receipt.config}
    given = {name: digests for name, digests in receipt.inputs.items() if name not in MODELS}
    return (
        str(receipt.info.get("prompts_digest") or _digest(asked)),
        str(receipt.info.get("reference_digest") or _digest({**asked, "inputs": given})),
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
