"""The table of a study: every variant's mean over seeds with its interval, and which published signs hold.

Intervals are Student's t over seeds, so that they hold what another training would change; what another set
of prompts would change is in them only as far as it differs by seed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from components.errors import InputError, one_line
from components.studies.definition import Sign, Study

LEVEL = 0.95
Verdict = Literal["agrees", "disagrees", "undecided"]
Values = Mapping[str, Sequence[Mapping[str, float]]]  # variant -> of each seed, label -> value


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds. values: one a seed; low, high: of its 95% interval, None for a single seed."""

    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SignResult:
    """A published sign beside ours. difference: better minus worse by seed, above 0 where it agrees."""

    measure: str
    better: str
    worse: str
    source: str
    difference: Estimate
    verdict: Verdict


@dataclass(frozen=True)
class StudyTable:
    """One study, measured. rows: variant -> an estimate for each of `measures`, in their order."""

    name: str
    title: str
    question: str
    model: str
    seeds: int
    measures: tuple[str, ...]
    rows: Mapping[str, tuple[Estimate, ...]]
    signs: tuple[SignResult, ...]

    def to_json(self) -> str:
        """The text of table.json; the same table gives the same bytes."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> "StudyTable":
        """Read what `to_json` wrote. Raises InputError, one line, for anything else."""
        try:
            values: dict[str, Any] = json.loads(text)
            rows = {name: tuple(_estimate(cell) for cell in row) for name, row in values["rows"].items()}
            signs = tuple(
                SignResult(**{**sign, "difference": _estimate(sign["difference"])})
                for sign in values["signs"]
            )
            measures = tuple(values["measures"])
            return StudyTable(**{**values, "measures": measures, "rows": rows, "signs": signs})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not the table of a study ({one_line(error)})") from error


def tabulate(name: str, study: Study, values: Values) -> StudyTable:
    """The table of all that was measured. values: of every variant and seed, every measure."""
    labels = tuple(measure.label for measure in study.measures)
    rows = {
        variant: tuple(estimate([seed[label] for seed in values[variant]]) for label in labels)
        for variant in study.variants
    }
    return StudyTable(
        name=name,
        title=study.title,
        question=study.question,
        model=study.model,
        seeds=len(next(iter(values.values()))),
        measures=labels,
        rows=rows,
        signs=tuple(_compared(study, sign, values) for sign in study.signs),
    )


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values and its interval by Student's t (n - 1 degrees of freedom)."""
    from scipy.stats import t

    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Estimate(tuple(values), mean, None, None)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * spread
    return Estimate(tuple(values), mean, mean - half, mean + half)


def _compared(study: Study, sign: Sign, values: Values) -> SignResult:
    """Seeds are paired: variants of one seed share their data order and noise."""
    up = 1 if study.measure(sign.measure).higher_is_better else -1
    pairs = zip(values[sign.better], values[sign.worse], strict=True)
    difference = estimate([up * (a[sign.measure] - b[sign.measure]) for a, b in pairs])
    return SignResult(**sign.model_dump(), difference=difference, verdict=_verdict(difference))


def _verdict(difference: Estimate) -> Verdict:
    if difference.low is not None and difference.low > 0:
        return "agrees"
    if difference.high is not None and difference.high < 0:
        return "disagrees"
    return "undecided"


def _estimate(cell: Mapping[str, Any]) -> Estimate:
    return Estimate(**{**cell, "values": tuple(cell["values"])})
