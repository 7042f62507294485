"""The results of an evaluation, and their two files.

`metrics.json` is a fixed interface, and the same evaluation gives the same bytes:

    {"protocol": {...}, "teacher": {"25": ENTRY}, "undistilled": {...}, "student": {"1": ENTRY, ...},
     "scorer": {form: share}, "floors": {metric: value}}

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
from components.evaluation.bootstrap import Interval

METRICS_FILE, TIMINGS_FILE = "metrics.json", "timings.json"
# undistilled: the teacher's network in as many unguided Euler steps as the student's, the least a student
# has to beat.
TEACHER, UNDISTILLED, STUDENT = "teacher", "undistilled", "student"
MODELS = (TEACHER, UNDISTILLED, STUDENT)
# A guided step evaluates the network twice, with the caption and without; the student has guidance absorbed.
NETWORK_CALLS_PER_STEP = {TEACHER: 2, UNDISTILLED: 1, STUDENT: 1}
SECONDS, UPSAMPLED_SECONDS = "seconds_per_image", "seconds_per_image_upsampled"
# The shares of an entry in metrics.json; the names are those of Evaluation's fields.
SHARES = ("prompt_following", "prompt_following_as_is", "geneval", "geneval_as_is")
NOT_METRICS = ("images", SECONDS, UPSAMPLED_SECONDS)  # numbers of an entry; the seconds in older ones
# Of a protocol: what the prompts' verdicts depend on, and that with all else that measures.
PROMPTS_DIGEST, REFERENCE_DIGEST = "prompts_digest", "reference_digest"


@dataclass(frozen=True)
class Evaluation:
    """One model at one number of steps, measured on the held-out prompts.

    The shares are of images that are correct, empty where no scorer covers the domain: by form of prompt
    exactly as prompted, by GenEval's category by its looser rules; by the default command (upsampled
    prompts), or from the prompts as they are. Metrics that are absent were not measured.
    """

    model: str  # of MODELS
    steps: int
    images: int  # that were generated and measured
    metrics: Mapping[str, float]  # by the names of metrics.METRICS
    prompt_following: Mapping[str, float] = field(default_factory=dict)
    prompt_following_as_is: Mapping[str, float] = field(default_factory=dict)
    geneval: Mapping[str, float] = field(default_factory=dict)
    geneval_as_is: Mapping[str, float] = field(default_factory=dict)
    # Of the means of prompt_following and prompt_following_as_is, by these names.
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    seconds_per_image: float | None = None  # of generating as is; None where no timings are at hand
    seconds_per_image_upsampled: float | None = None  # with upsampling the prompt

    @property
    def mean(self) -> float | None:
        """Exact prompt following by the default command, averaged over forms; None where unmeasured."""
        return mean_share(self.prompt_following)

    @property
    def mean_as_is(self) -> float | None:
        """Exact prompt following as is, averaged over forms; None where unmeasured."""
        return mean_share(self.prompt_following_as_is)

    @property
    def network_evaluations(self) -> int:
        """How often the network is evaluated for one image, its autoguide (which is smaller) apart."""
        return self.steps * NETWORK_CALLS_PER_STEP[self.model]

    def to_entry(self) -> dict[str, Any]:
        """Its JSON under its model and steps, without the seconds."""
        intervals = {name: [interval.low, interval.high] for name, interval in self.intervals.items()}
        return {
            **{name: _with_mean(getattr(self, name)) for name in SHARES},
            "intervals": intervals,
            **self.metrics,
            "images": self.images,
        }

    def timings(self) -> dict[str, float]:
        """Its JSON in timings.json; empty where nothing was timed."""
        seconds = {SECONDS: self.seconds_per_image, UPSAMPLED_SECONDS: self.seconds_per_image_upsampled}
        return {name: value for name, value in seconds.items() if value is not None}

    def with_timings(self, seconds: Mapping[str, Any]) -> "Evaluation":
        """With the seconds that `timings` gave; those that are missing stay as they are."""
        return replace(
            self,
            seconds_per_image=_seconds(seconds, SECONDS, self.seconds_per_image),
            seconds_per_image_upsampled=_seconds(
                seconds, UPSAMPLED_SECONDS, self.seconds_per_image_upsampled
            ),
        )

    @staticmethod
    def from_entry(model: str, steps: int, entry: Mapping[str, Any]) -> "Evaluation":
        """Read what `to_entry` wrote, of this version or another.

        Raises TypeError, ValueError or AttributeError where a value is not what its field holds.
        """
        shares = {name: _without_mean(entry.get(name, {})) for name in SHARES}
        evaluation = Evaluation(
            model=model,
            steps=steps,
            images=int(entry.get("images", 0)),
            metrics={
                name: float(value)
                for name, value in entry.items()
                if name not in NOT_METRICS and isinstance(value, int | float)
            },
            intervals={
                name: Interval(float(low), float(high), mean_share(shares[name]) or 0.0)
                for name, (low, high) in entry.get("intervals", {}).items()
                if name in shares
            },
            prompt_following=shares["prompt_following"],
            prompt_following_as_is=shares["prompt_following_as_is"],
            geneval=shares["geneval"],
            geneval_as_is=shares["geneval_as_is"],
        )
        return evaluation.with_timings(entry)


@dataclass(frozen=True)
class Metrics:
    """An evaluation of all models, as metrics.json and timings.json hold it."""

    evaluations: tuple[Evaluation, ...]
    scorer: Mapping[str, float]  # the scorer's own accuracy on true renders, by form
    # Digests of the prompts and of all that measures; see `comparable`.
    protocol: Mapping[str, str] = field(default_factory=dict)
    # What true renders (nearest: held-out images) reach of a metric: sampling alone gives no less.
    floors: Mapping[str, float] = field(default_factory=dict)

    def of(self, model: str, steps: int) -> Evaluation | None:
        """The evaluation of `model` at `steps`, if it was made."""
        return next((e for e in self.evaluations if (e.model, e.steps) == (model, steps)), None)

    def above_floor(self, evaluation: Evaluation, metric: str) -> float | None:
        """A metric minus its floor; None where either was not measured."""
        value, floor = evaluation.metrics.get(metric), self.floors.get(metric)
        return None if value is None or floor is None else value - floor

    def to_json(self) -> str:
        """The text of metrics.json; the same metrics give the same bytes."""
        entries = {model: {str(e.steps): e.to_entry() for e in self._of_model(model)} for model in MODELS}
        return _json(
            {
                "protocol": dict(self.protocol),
                **entries,
                "scorer": dict(self.scorer),
                "floors": dict(self.floors),
            }
        )

    def timings_json(self) -> str:
        """The text of timings.json."""
        timings = {
            model: {str(e.steps): e.timings() for e in self._of_model(model) if e.timings()}
            for model in MODELS
        }
        return _json(timings)

    def _of_model(self, model: str) -> list[Evaluation]:
        return sorted((e for e in self.evaluations if e.model == model), key=lambda e: e.steps)


def mean_share(shares: Mapping[str, float]) -> float | None:
    """The mean over forms or categories, each with the same weight; None where there is none."""
    return math.fsum(shares.values()) / len(shares) if shares else None


def comparable(a: Mapping[str, str], b: Mapping[str, str], digest: str = REFERENCE_DIGEST) -> bool:
    """Whether numbers of the protocols `a` and `b` may be compared, at the same steps.

    digest: PROMPTS_DIGEST for prompt following, GenEval's rules and coverage; REFERENCE_DIGEST, which holds
    the other, for all else. A protocol without the digest (another version's) compares with none.
    """
    return bool(a.get(digest)) and a.get(digest) == b.get(digest)


def read_metrics(path: Path) -> Metrics:
    """Read metrics.json, and timings.json beside it where there is one.

    Raises InputError, one line that names the file, where metrics.json is no such file at all.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        entries = {TEACHER: document[TEACHER], STUDENT: document[STUDENT]}
        entries[UNDISTILLED] = document.get(UNDISTILLED, {})  # older versions did not measure it
        evaluations = [
            Evaluation.from_entry(model, int(steps), entry)
            for model in MODELS
            for steps, entry in entries[model].items()
        ]
        metrics = Metrics(
            evaluations=_sorted(evaluations),
            scorer={name: float(share) for name, share in document.get("scorer", {}).items()},
            protocol={name: str(digest) for name, digest in document.get("protocol", {}).items()},
            floors={name: float(value) for name, value in document.get("floors", {}).items()},
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
        timed = [e.with_timings(document.get(e.model, {}).get(str(e.steps), {})) for e in metrics.evaluations]
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return metrics
    return replace(metrics, evaluations=tuple(timed))


def _seconds(seconds: Mapping[str, Any], name: str, otherwise: float | None) -> float | None:
    value = seconds.get(name)
    return otherwise if value is None else float(value)


def _with_mean(shares: Mapping[str, float]) -> dict[str, float]:
    mean = mean_share(shares)
    return dict(shares) if mean is None else {**shares, "mean": mean}


def _without_mean(shares: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(share) for name, share in shares.items() if name != "mean"}


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _sorted(evaluations: Iterable[Evaluation]) -> tuple[Evaluation, ...]:
    return tuple(sorted(evaluations, key=lambda e: (MODELS.index(e.model), e.steps)))
