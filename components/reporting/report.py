"""Renders the report page: one HTML file with everything in it, readable without a network or a script.

The layout is report.jinja, the styles are report.css.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.durable import write_text
from components.evaluation.results import STUDENT, TEACHER, Evaluation, Metrics
from components.reporting.plots import plot_losses, plot_quality, plot_study
from components.reporting.quality_tables import (
    AS_IS,
    DEFAULT,
    QualityTable,
    cost_table,
    coverage_table,
    distances_table,
    following_tables,
    geneval_tables,
    interval_text,
)
from components.reporting.reasons import ReasonCount, count_reasons, reason_words
from components.reporting.report_data import ReportData, StageRow
from components.reporting.study_texts import estimate_text, sign_text
from components.reporting.thumbnails import thumbnail

DATA_STAGES = ("fetch", "filter", "recaption", "shard")  # the funnel, in order
TEXT_SHOWN = 400  # characters of an alt text or caption; crawled ones can be pages long
# Characters that would vanish or reorder the text around them: controls and bidirectional overrides.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")


def write_report(path: Path, data: ReportData) -> Path:
    """Write the page to `path`, whole or not at all."""
    write_text(path, render_report(data))
    return path


def render_report(data: ReportData) -> str:
    """The page as HTML text; the same data give the same text."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(
        thumbnail=thumbnail,
        words=reason_words,
        count=_count,
        share=_share,
        duration=_duration,
        crawled=_crawled,
        score=_score,
        study_figure=plot_study,
        estimate=estimate_text,
        sign=sign_text,
    )
    page = templates.get_template("report.jinja").render(
        data=data,
        headline=_headline(data.metrics),
        facts=_facts(data.metrics),
        funnel=_funnel(data.stages),
        tables=_tables(data.metrics),
        plots=_quality_plots(data.metrics),
        losses=_loss_plots(data),
        seconds=sum(row.seconds for row in data.stages),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # lone surrogates of broken input


@dataclass(frozen=True)
class FunnelStep:
    """One data stage of the funnel, against the raw corpus."""

    stage: str
    records_in: int
    kept: int
    raw: int  # records in the corpus
    reasons: tuple[ReasonCount, ...]
    dropped: tuple[ReasonCount, ...] = ()  # why records go on without their alt text

    @property
    def lost(self) -> int:
        return self.records_in - self.kept


@dataclass(frozen=True)
class Fact:
    """One number at the top of the page. model: teacher, undistilled, student or none."""

    name: str
    value: str
    about: str
    model: str = ""


@dataclass(frozen=True)
class Headline:
    """The main result, at the top of the page, and the two models of its drawing."""

    text: str
    teacher: Evaluation | None = None
    student: Evaluation | None = None


def _headline(metrics: Metrics | None) -> Headline:
    """The student's prompt following by the default command; where that is not scored, its judge score."""
    teacher, student = _best_teacher(metrics), _quickest_student(metrics)
    if not teacher or not student:
        return Headline("This run has not been evaluated yet")
    steps = "One step" if student.steps == 1 else f"{student.steps} steps"
    if student.mean is not None:
        draws, exactly = ("draws", "draw")[student.steps != 1], " exactly" if _exactly(metrics) else ""
        return Headline(f"{steps} {draws} {_share(student.mean, 1)} of prompts{exactly}", teacher, student)
    reach = "reaches" if student.steps == 1 else "reach"
    scores = [e.metrics.get("judge_score") for e in (student, teacher)]
    text = f"{steps} {reach} {_share(*scores)} of the teacher" if scores[1] else f"{steps}, one straight shot"
    return Headline(text, teacher, student)


def _exactly(metrics: Metrics | None) -> str:
    """Empty for metrics of an older version, whose prompts counted as followed by looser rules."""
    return "exact, " if metrics and any(e.prompt_following_as_is for e in metrics.evaluations) else ""


def _facts(metrics: Metrics | None) -> tuple[Fact, ...]:
    """The numbers that say how good the student is: never without its interval, its floor or its teacher."""
    teacher, student = _best_teacher(metrics), _quickest_student(metrics)
    if metrics is None or not teacher or not student:
        return ()
    name, facts = f"Student, {student.steps} step{'s' * (student.steps != 1)}", []
    for mean, best, field, words in (
        (student.mean, teacher.mean, "prompt_following", DEFAULT),
        (student.mean_as_is, teacher.mean_as_is, "prompt_following_as_is", AS_IS),
    ):
        if mean is not None:
            interval = student.intervals.get(field)
            known = f"; 95%: {interval_text(interval)}" if interval else ""
            facts.append(
                Fact(
                    name, _score(mean), f"{_exactly(metrics)}{words}{known}; teacher {_score(best)}", STUDENT
                )
            )
    if student.mean is None:
        scores = [e.metrics.get("judge_score") for e in (student, teacher)]
        facts.append(Fact(name, _score(scores[0]), f"judge score; teacher {_score(scores[1])}", STUDENT))
    excess, floor = metrics.above_floor(student, "coverage"), metrics.floors.get("coverage")
    if excess is not None:
        about = f"distance to the corpus {_score(student.metrics['coverage'])}, floor {_score(floor)}"
        facts.append(Fact("Coverage above floor", f"{excess:+.3f}", about))
    seconds = [e.seconds_per_image for e in (teacher, student)]
    if seconds[0] and seconds[1]:
        calls = f"{teacher.network_evaluations} network evaluations against {student.network_evaluations}"
        facts.append(Fact("Faster an image", f"{_count(seconds[0] / seconds[1])}×", calls))
    return tuple(facts)


def _tables(metrics: Metrics | None) -> tuple[QualityTable, ...]:
    """Every table of the evaluation, each of one protocol."""
    if metrics is None:
        return ()
    others = (coverage_table(metrics), cost_table(metrics), distances_table(metrics))
    return (
        *following_tables(metrics),
        *(table for table in others if table is not None),
        *geneval_tables(metrics),
    )


def _quality_plots(metrics: Metrics | None) -> tuple[tuple[str, str], ...]:
    """(caption, SVG): by the default command, and as is where that was measured."""
    if metrics is None or not metrics.evaluations:
        return ()
    plots = [(DEFAULT, plot_quality(metrics.evaluations))]
    if any(e.prompt_following_as_is for e in metrics.evaluations):
        plots.append((AS_IS, plot_quality(metrics.evaluations, upsampled=False)))
    return tuple((words[0].upper() + words[1:], svg) for words, svg in plots)


def _best_teacher(metrics: Metrics | None) -> Evaluation | None:
    """The teacher at its most steps: the reference for every student."""
    rows = [e for e in metrics.evaluations if e.model == TEACHER] if metrics else []
    return max(rows, key=lambda e: e.steps, default=None)


def _quickest_student(metrics: Metrics | None) -> Evaluation | None:
    rows = [e for e in metrics.evaluations if e.model == STUDENT] if metrics else []
    return min(rows, key=lambda e: e.steps, default=None)


def _funnel(stages: Sequence[StageRow]) -> tuple[FunnelStep, ...]:
    steps: list[FunnelStep] = []
    for row in sorted(
        (s for s in stages if s.stage in DATA_STAGES), key=lambda s: DATA_STAGES.index(s.stage)
    ):
        if row.records_in is None or row.kept is None:
            continue
        raw = steps[0].raw if steps else row.records_in
        reasons, dropped = count_reasons(row.rejects), count_reasons(row.dropped_texts)
        steps.append(FunnelStep(row.stage, row.records_in, row.kept, raw, reasons, dropped))
    return tuple(steps)


def _loss_plots(data: ReportData) -> tuple[tuple[str, str], ...]:
    """(stage, SVG) for each curve that has a point to plot."""
    plottable = [c for c in data.losses if any(math.isfinite(value) for value in c.values)]
    return tuple((curve.stage, plot_losses([curve])) for curve in plottable)


def _count(number: float | None) -> str:
    """12345 as 12,345; a dash where there is nothing to count."""
    return "–" if number is None else f"{number:,.0f}"


def _share(part: float | None, whole: float | None) -> str:
    """A percentage that never rounds to 0% or 100% what is not."""
    if part is None or not whole:
        return "–"
    share = 100 * part / whole
    if 99.5 <= share < 100 or 0 < share < 1:
        return f"{share:.1f}%" if 0.05 <= share < 99.95 else ("<0.1%" if share < 1 else ">99.9%")
    return f"{share:.0f}%"


def _score(value: float | None) -> str:
    """0.8125 as 0.812; a dash where it was not measured."""
    return "–" if value is None else f"{value:.3f}"


def _duration(seconds: float | None) -> str:
    """Seconds in units that read well: 0.4 ms, 48.2 s, 3 min 05 s, 2 h 04 min; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 1:
        text = f"{seconds * 1000:.3g} ms"
    elif seconds < 60:
        text = f"{seconds:.1f} s"
    elif seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        text = f"{minutes} min {rest:02d} s"
    else:
        hours, rest = divmod(round(seconds / 60), 60)
        text = f"{hours} h {rest:02d} min"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _crawled(text: str | None) -> str:
    """Text of unknown origin, made visible and bounded; the template escapes it."""
    visible = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text or "")
    return visible if len(visible) <= TEXT_SHOWN else visible[: TEXT_SHOWN - 1] + "…"
