"""The results of an evaluation, and their two files.

`metrics.json` is a fixed interface, and the same evaluation gives the same bytes:

    {"protocol": {...}, "teacher": {"50": {...}}, "student": {"1": {...}}, "scorer": {...}}

`timings.json` beside it has the seconds, which no two runs share. Both are read tolerantly: a metric that
another version of this project did not have is missing, one that this version does not know is kept.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components.errors import InputError, one_line

METRICS_FILE, TIMINGS_FILE = "metrics.json", "timings.json"
MODELS = ("teacher", "student")
# A guided step evaluates the network twice, with the caption and without; the student has guidance absorbed.
NETWORK_CALLS_PER_STEP = {"teacher": 2, "student": 1}
SECONDS = "seconds_per_image"
NOT_METRICS = ("prompt_following", "images", SECONDS)  # of an entry in metrics.json; SECONDS in older ones


@dataclass(frozen=True)
class Evaluation:
    """One model at one number of steps, measured on the held-out prompts."""

    model: str  # teacher | student
    steps: int
    images: int
    metrics: Mapping[str, float]  # by the names of metrics.METRICS; one that is absent was not measured
    # Share of images that are correct, by category of prompt; empty where no scorer covers the domain.
    prompt_following: Mapping[str, float] = field(default_factory=dict)
    seconds_per_image: float | None = None  # of generating; None where no timings are at hand

    @property
    def mean(self) -> float | None:
        """Prompt following averaged over categories, each with the same weight; None where unmeasured."""
        scores = self.prompt_following.values()
        return math.fsum(scores) / len(scores) if scores else None

    @property
    def network_evaluations(self) -> int:
        """How often the network is evaluated for one image."""
        return self.steps * NETWORK_CALLS_PER_STEP[self.model]

    def to_entry(self) -> dict[str, Any]:
        """Its JSON under its model and steps, without the seconds."""
        prompt_following = dict(self.prompt_following)
        if self.mean is not None:
            prompt_following["mean"] = self.mean
        return {"prompt_following": prompt_following, **self.metrics, "images": self.images}

    @staticmethod
    def from_entry(
        model: str, steps: int, entry: Mapping[str, Any], seconds_per_image: float | None = None
    ) -> "Evaluation":
        """Read what `to_entry` wrote, of this version or another.

        Raises TypeError, ValueError or AttributeError where a value is not what its field holds.
        """
        prompt_following = {name: float(v) for name, v in entry.get("prompt_following", {}).items()}
        prompt_following.pop("mean", None)
        seconds = entry.get(SECONDS) if seconds_per_image is None else seconds_per_image
        return Evaluation(
            model=model,
            steps=steps,
            images=int(entry.get("images", 0)),
            metrics={
                name: float(value)
                for name, value in entry.items()
                if name not in NOT_METRICS and isinstance(value, int | float)
            },
            prompt_following=prompt_following,
            seconds_per_image=None if seconds is None else float(seconds),
        )


@dataclass(frozen=True)
class Metrics:
    """An evaluation of teacher and student, as metrics.json and timings.json hold it."""

    evaluations: tuple[Evaluation, ...]
    scorer: Mapping[str, float]  # the scorer's own accuracy on true renders, per category
    # Digests of the prompts and of all that measures; numbers of two protocols are never compared.
    protocol: Mapping[str, str] = field(default_factory=dict)

    def of(self, model: str, steps: int) -> Evaluation | None:
        """The evaluation of `model` at `steps`, if it was made."""
        return next((e for e in self.evaluations if (e.model, e.steps) == (model, steps)), None)

    def to_json(self) -> str:
        """The text of metrics.json; the same metrics give the same bytes."""
        entries = {model: {str(e.steps): e.to_entry() for e in self._of_model(model)} for model in MODELS}
        return _json({"protocol": dict(self.protocol), **entries, "scorer": dict(self.scorer)})

    def timings_json(self) -> str:
        """The text of timings.json."""
        return _json(
            {
                model: {
                    str(e.steps): {SECONDS: e.seconds_per_image}
                    for e in self._of_model(model)
                    if e.seconds_per_image is not None
                }
                for model in MODELS
            }
        )

    def _of_model(self, model: str) -> list[Evaluation]:
        return sorted((e for e in self.evaluations if e.model == model), key=lambda e: e.steps)


def read_metrics(path: Path) -> Metrics:
    """Read metrics.json, and timings.json beside it where there is one.

    Raises InputError, one line that names the file, where metrics.json is no such file at all.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        evaluations = [
            Evaluation.from_entry(model, int(steps), entry)
            for model in MODELS
            for steps, entry in document[model].items()
        ]
        metrics = Metrics(
            evaluations=_sorted(evaluations),
            scorer={name: float(share) for name, share in document.get("scorer", {}).items()},
            protocol={name: str(digest) for name, digest in document.get("protocol", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not a metrics.json ({one_line(error)}); run `straightshot run --force evaluate`"
        ) from error
    return _with_timings(metrics, path.with_name(TIMINGS_FILE))


def _with_timings(metrics: Metrics, path: Path) -> Metrics:
    """The metrics with the seconds of timings.json; without them where the file is missing or damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        seconds = {
            (model, int(steps)): float(entry[SECONDS])
            for model in MODELS
            for steps, entry in document.get(model, {}).items()
        }
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return metrics
    timed = [
        replace(e, seconds_per_image=seconds.get((e.model, e.steps), e.seconds_per_image))
        for e in metrics.evaluations
    ]
    return replace(metrics, evaluations=tuple(timed))


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _sorted(evaluations: Iterable[Evaluation]) -> tuple[Evaluation, ...]:
    return tuple(sorted(evaluations, key=lambda e: (MODELS.index(e.model), e.steps)))
