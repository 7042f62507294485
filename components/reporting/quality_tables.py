"""The tables of an evaluation, as rows of text: the report's page and the command print the same ones.

A table holds numbers of one protocol only, and names it: numbers of two are never compared.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from components.evaluation.bootstrap import Interval
from components.evaluation.metrics import METRICS, Metric
from components.evaluation.results import (
    PROMPTS_DIGEST,
    REFERENCE_DIGEST,
    STUDENT,
    TEACHER,
    Evaluation,
    Metrics,
    mean_share,
)

NONE = "–"  # not measured
DIGEST_SHOWN = 12  # hex digits of a protocol
DEFAULT, AS_IS = "by the default command", "prompts as they are"
ABOVE_FLOOR = ("coverage",)  # metrics that are judged by what is above their floor


@dataclass(frozen=True)
class QualityCell:
    """One cell: its text, and the share (0..1) that a page may show as a bar."""

    text: str
    share: float | None = None


@dataclass(frozen=True)
class QualityRow:
    """One model at one number of steps; `model` is empty where the row is the scorer's or a floor's."""

    model: str
    label: str
    cells: tuple[QualityCell, ...]


@dataclass(frozen=True)
class QualityTable:
    """Numbers that may be compared with each other. protocol: the start of its digest, or empty."""

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[QualityRow, ...]
    protocol: str = ""


def following_tables(metrics: Metrics) -> tuple[QualityTable, ...]:
    """Exact prompt following by form: by the default command, and of the prompts as they are."""
    exact = any(e.prompt_following_as_is for e in metrics.evaluations)  # else another version measured it
    title = "Exact prompt following" if exact else "Prompt following"
    note = (
        "Every statement of the prompt holds, and nothing else is there. 95% intervals by bootstrap over the"
        " prompts."
        if exact
        else "As an older version of Straightshot scored it, by looser rules."
    )
    tables = (
        _shares(metrics, "prompt_following", f"{title}, {DEFAULT}", note, metrics.scorer),
        _shares(metrics, "prompt_following_as_is", f"{title}, {AS_IS}", note, metrics.scorer),
    )
    return tuple(table for table in tables if table is not None)


def geneval_tables(metrics: Metrics) -> tuple[QualityTable, ...]:
    """The prompts of GenEval's six categories by its own, looser rules."""
    note = (
        "Only what GenEval checks in each category must hold: other statements may fail, and other things may"
        " be there. Not to be compared with exact following."
    )
    tables = (
        _shares(metrics, "geneval", f"By GenEval’s looser rules, {DEFAULT}", note, {}),
        _shares(metrics, "geneval_as_is", f"By GenEval’s looser rules, {AS_IS}", note, {}),
    )
    return tuple(table for table in tables if table is not None)


def coverage_table(metrics: Metrics) -> QualityTable | None:
    """Metrics of the prompts' protocol: coverage, with its floor."""
    note = (
        "Total variation distance between what prompts leave open in the images (cells, sizes, background)"
        " and in the corpus: 0 is the corpus, 1 has nothing in common with it. The floor is what as many true"
        " renders reach."
    )
    return _metrics_table(metrics, "coverage", "Coverage of what prompts leave open", note, PROMPTS_DIGEST)


def distances_table(metrics: Metrics) -> QualityTable | None:
    """Metrics that depend on the judge and the reference images."""
    note = (
        "In the judge’s features: Fréchet and kernel distance to the held-out images, on their own captions;"
        " the distance to the nearest training image (far below its floor: memorised). The floor is what true"
        " renders or, for the nearest, held-out images reach."
    )
    return _metrics_table(metrics, "distances", "Distances and judge", note, REFERENCE_DIGEST)


def cost_table(metrics: Metrics) -> QualityTable:
    """What an image costs; timings depend on the machine and on nothing else that is measured."""
    columns = ("Evaluations", "Time", "Upsampled")
    rows = tuple(
        QualityRow(
            e.model,
            label_of(e),
            tuple(
                QualityCell(text)
                for text in (
                    str(e.network_evaluations),
                    _milliseconds(e.seconds_per_image),
                    _milliseconds(e.seconds_per_image_upsampled),
                )
            ),
        )
        for e in metrics.evaluations
    )
    note = (
        "Evaluations: of the network, for one image; a guided step of the teacher needs two, every other step"
        " one. Upsampled: the time with upsampling the prompt."
    )
    return QualityTable("cost", "What an image costs", note, columns, rows)


def summary_lines(metrics: Metrics) -> list[str]:
    """The student at each number of steps in a line: exact following both ways, and coverage."""
    lines = []
    for e in metrics.evaluations:
        if e.model != STUDENT:
            continue
        parts = []
        for name, words in (("prompt_following", DEFAULT), ("prompt_following_as_is", "as is")):
            mean, interval = _mean(e, name), e.intervals.get(name)
            ends = f" ({interval_text(interval)})" if interval else ""
            parts += [f"{mean:.3f}{ends} {words}"] if mean is not None else []
        exact = "exact " if e.prompt_following_as_is else ""
        above = metrics.above_floor(e, "coverage")
        parts += [f"coverage {above:+.3f} above its floor"] if above is not None else []
        lines.append(f"{label_of(e)}: {exact}{', '.join(parts)}" if parts else f"{label_of(e)}: not scored")
    return lines


def joined(tables: Iterable[QualityTable | None]) -> QualityTable | None:
    """Tables of the same models side by side, for a narrow place; rows of no model keep their own cells."""
    given = [table for table in tables if table is not None]
    if not given:
        return None
    labels = dict.fromkeys((row.model, row.label) for table in given for row in table.rows)
    rows = []
    for model, label in sorted(labels, key=lambda key: not key[0]):  # what is no model's goes last
        cells: tuple[QualityCell, ...] = ()
        for table in given:
            found = (row.cells for row in table.rows if (row.model, row.label) == (model, label))
            cells += next(found, (QualityCell(""),) * len(table.columns))
        rows.append(QualityRow(model, label, cells))
    columns = tuple(column for table in given for column in table.columns)
    return QualityTable(given[0].name, given[0].title, given[0].note, columns, tuple(rows))


def label_of(evaluation: Evaluation) -> str:
    """teacher, 25 steps."""
    return f"{evaluation.model}, {evaluation.steps} step{'s' * (evaluation.steps != 1)}"


def interval_text(interval: Interval | None) -> str:
    """.893–.931; a dash where there is none."""
    return NONE if interval is None else f"{interval.low:.3f}–{interval.high:.3f}"


def _shares(
    metrics: Metrics, name: str, title: str, note: str, scorer: Mapping[str, float]
) -> QualityTable | None:
    """A row of shares for each model: the mean, its interval, its part of the teacher's, each form."""
    shares = {label_of(e): getattr(e, name) for e in metrics.evaluations}
    forms = tuple(dict.fromkeys(form for row in shares.values() for form in row))
    if not forms:
        return None
    intervals = any(name in e.intervals for e in metrics.evaluations)
    best = max((m for e in metrics.evaluations if e.model == TEACHER and (m := _mean(e, name))), default=None)
    columns = ("Mean", *(("95%",) if intervals else ()), "Of teacher", *(f.replace("_", " ") for f in forms))
    rows = []
    for e in metrics.evaluations:
        mean = _mean(e, name)
        cells = [_share(mean)]
        cells += [QualityCell(interval_text(e.intervals.get(name)))] if intervals else []
        cells.append(QualityCell(f"{mean / best:.0%}" if best and mean is not None else NONE))
        rows.append(QualityRow(e.model, label_of(e), (*cells, *_row(shares[label_of(e)], forms))))
    if scorer:
        empty = (QualityCell(""),) * (1 + intervals)
        cells = [_share(mean_share(scorer)), *empty, *_row(scorer, forms)]
        rows.append(QualityRow("", "scorer, on true renders", tuple(cells)))
    return QualityTable(name, title, note, columns, tuple(rows), _protocol(metrics, PROMPTS_DIGEST))


def _metrics_table(metrics: Metrics, name: str, title: str, note: str, digest: str) -> QualityTable | None:
    chosen = [metric for metric in METRICS if metric.protocol == digest and _measured(metrics, metric)]
    if not chosen:
        return None
    excess = [metric for metric in chosen if metric.name in ABOVE_FLOOR and metric.name in metrics.floors]
    columns = [metric.label for metric in chosen] + ["Above floor"] * len(excess)
    rows = []
    for e in metrics.evaluations:
        values = [metric.show(e.metrics.get(metric.name)) for metric in chosen]
        values += [metric.show(metrics.above_floor(e, metric.name)) for metric in excess]
        rows.append(QualityRow(e.model, label_of(e), _texts(values)))
    if any(metric.name in metrics.floors for metric in chosen):
        floors = [metric.show(metrics.floors.get(metric.name)) for metric in chosen] + [""] * len(excess)
        rows.append(QualityRow("", "floor", _texts(floors)))
    return QualityTable(name, title, note, tuple(columns), tuple(rows), _protocol(metrics, digest))


def _measured(metrics: Metrics, metric: Metric) -> bool:
    return any(metric.name in e.metrics for e in metrics.evaluations)


def _mean(evaluation: Evaluation, name: str) -> float | None:
    return mean_share(getattr(evaluation, name))


def _row(shares: Mapping[str, float], forms: Iterable[str]) -> list[QualityCell]:
    return [_share(shares.get(form), digits=2) for form in forms]


def _share(value: float | None, digits: int = 3) -> QualityCell:
    return QualityCell(NONE if value is None else f"{value:.{digits}f}", value)


def _texts(texts: Iterable[str]) -> tuple[QualityCell, ...]:
    return tuple(QualityCell(text) for text in texts)


def _protocol(metrics: Metrics, digest: str) -> str:
    return metrics.protocol.get(digest, "")[:DIGEST_SHOWN]


def _milliseconds(seconds: float | None) -> str:
    return NONE if seconds is None else f"{1000 * seconds:.1f} ms"
