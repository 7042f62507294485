"""What an evaluation found, and its JSON.

Written by pipelines/stages/evaluate.py, read by promote and the report.

`metrics.json` is a fixed interface: {"teacher": {"50": {...}}, "student": {"1": {...}}, "scorer": {...}}.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A guided step asks the network twice, with the caption and without; the student has guidance absorbed.
NETWORK_CALLS_PER_STEP = {"teacher": 2, "student": 1}
NUMBERS = ("frechet", "judge_score", "seconds_per_image")


@dataclass(frozen=True)
class Evaluation:
    """One model at one number of steps, measured on the held-out prompts."""

    model: str  # teacher | student
    steps: int
    frechet: float  # squared distance in the judge's features to held-out images
    judge_score: float  # mean cosine of image and prompt
    seconds_per_image: float
    images: int
    # Share of images in which the category's question is answered; empty where no scorer knows the world.
    prompt_following: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        """Prompt following averaged over categories, each with the same weight; None where unmeasured."""
        scores = self.prompt_following.values()
        return math.fsum(scores) / len(scores) if scores else None

    @property
    def network_evaluations(self) -> int:
        """How often the network is asked for one image."""
        return self.steps * NETWORK_CALLS_PER_STEP[self.model]

    def to_entry(self) -> dict[str, Any]:
        """Its JSON under its model and steps."""
        following = dict(self.prompt_following)
        if self.mean is not None:
            following["mean"] = self.mean
        numbers = {name: float(getattr(self, name)) for name in NUMBERS}
        return {"prompt_following": following, **numbers, "images": self.images}

    @staticmethod
    def from_entry(model: str, steps: int, entry: Mapping[str, Any]) -> "Evaluation":
        """What `to_entry` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        following = {name: float(v) for name, v in entry["prompt_following"].items() if name != "mean"}
        numbers = {name: float(entry[name]) for name in NUMBERS}
        return Evaluation(
            model=model, steps=steps, images=int(entry["images"]), prompt_following=following, **numbers
        )


@dataclass(frozen=True)
class Metrics:
    """Everything metrics.json holds."""

    evaluations: tuple[Evaluation, ...]
    scorer: Mapping[str, float]  # the scorer's own accuracy on true renders, per category

    def of(self, model: str, steps: int) -> Evaluation | None:
        """The evaluation of `model` at `steps`, if it was made."""
        return next((e for e in self.evaluations if (e.model, e.steps) == (model, steps)), None)

    def to_json(self) -> str:
        """The text of metrics.json; the same metrics give the same bytes."""
        document: dict[str, Any] = {"teacher": {}, "student": {}, "scorer": dict(self.scorer)}
        for found in sorted(self.evaluations, key=lambda e: (e.model, e.steps)):
            document[found.model][str(found.steps)] = found.to_entry()
        return json.dumps(document, indent=2, allow_nan=False) + "\n"


def read_metrics(path: Path) -> Metrics:
    """Read metrics.json. Raises ValueError naming the file and what is wrong in it."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = [
            Evaluation.from_entry(model, int(steps), entry)
            for model in ("teacher", "student")
            for steps, entry in document[model].items()
        ]
        return Metrics(evaluations=_sorted(found), scorer=dict(document["scorer"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a metrics.json ({error}); run `straightshot run --force evaluate`"
        ) from error


def _sorted(found: Iterable[Evaluation]) -> tuple[Evaluation, ...]:
    return tuple(sorted(found, key=lambda e: (e.model != "teacher", e.steps)))
