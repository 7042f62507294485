"""Renders the report page: one HTML file with everything in it, readable without a network or a script.

The layout is report.jinja, the styles are report.css.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.durable import write_text
from components.evaluation.metrics import METRICS
from components.evaluation.results import Evaluation, Metrics
from components.reporting.plots import plot_losses, plot_quality
from components.reporting.reasons import ReasonCount, count_reasons, reason_words
from components.reporting.report_data import ReportData, StageRow
from components.reporting.thumbnails import thumbnail

DATA_STAGES = ("filter", "recaption", "shard")  # the funnel, in order
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
    )
    page = templates.get_template("report.jinja").render(
        data=data,
        headline=_headline(data.metrics),
        funnel=_funnel(data.stages),
        models=_model_rows(data.metrics),
        categories=_categories(data.metrics),
        columns=METRICS,
        losses=_loss_plots(data),
        quality=plot_quality(data.metrics.evaluations) if data.metrics else "",
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

    @property
    def lost(self) -> int:
        return self.records_in - self.kept


@dataclass(frozen=True)
class ModelRow:
    """One line of the metrics table; `of_teacher` is its mean against the teacher's best."""

    evaluation: Evaluation
    of_teacher: float | None


@dataclass(frozen=True)
class Headline:
    """The main result, at the top of the page. The numbers are None where evaluate has not run."""

    text: str
    teacher: Evaluation | None = None
    student: Evaluation | None = None
    measure: str = ""
    teacher_quality: float | None = None
    student_quality: float | None = None

    @property
    def speedup(self) -> float | None:
        """How many times faster the student generates an image."""
        teacher = self.teacher.seconds_per_image if self.teacher else None
        student = self.student.seconds_per_image if self.student else None
        return teacher / student if teacher and student else None


def _headline(metrics: Metrics | None) -> Headline:
    teacher, student = _best_teacher(metrics), _quickest_student(metrics)
    if not teacher or not student:
        return Headline("This run has not been evaluated yet")
    scored = teacher.mean is not None and student.mean is not None
    measure = "prompt following, mean" if scored else "judge score"
    best, quick = (e.mean if scored else e.metrics.get("judge_score") for e in (teacher, student))
    steps = "One step" if student.steps == 1 else f"{student.steps} steps"
    reach = "reaches" if student.steps == 1 else "reach"
    text = f"{steps} {reach} {_share(quick, best)} of the teacher" if best else f"{steps}, one straight shot"
    return Headline(text, teacher, student, measure, best, quick)


def _best_teacher(metrics: Metrics | None) -> Evaluation | None:
    """The teacher at its most steps: the reference for every student."""
    rows = [e for e in metrics.evaluations if e.model == "teacher"] if metrics else []
    return max(rows, key=lambda e: e.steps, default=None)


def _quickest_student(metrics: Metrics | None) -> Evaluation | None:
    rows = [e for e in metrics.evaluations if e.model == "student"] if metrics else []
    return min(rows, key=lambda e: e.steps, default=None)


def _funnel(stages: Sequence[StageRow]) -> tuple[FunnelStep, ...]:
    steps: list[FunnelStep] = []
    for row in sorted(
        (s for s in stages if s.stage in DATA_STAGES), key=lambda s: DATA_STAGES.index(s.stage)
    ):
        if row.records_in is None or row.kept is None:
            continue
        raw = steps[0].raw if steps else row.records_in
        steps.append(FunnelStep(row.stage, row.records_in, row.kept, raw, count_reasons(row.rejects)))
    return tuple(steps)


def _model_rows(metrics: Metrics | None) -> tuple[ModelRow, ...]:
    teacher = _best_teacher(metrics)
    reference = teacher.mean if teacher else None
    return tuple(
        ModelRow(e, e.mean / reference if reference and e.mean is not None else None)
        for e in (metrics.evaluations if metrics else ())
    )


def _categories(metrics: Metrics | None) -> tuple[str, ...]:
    """The categories in the order they were measured."""
    every = [name for e in (metrics.evaluations if metrics else ()) for name in e.prompt_following]
    return tuple(dict.fromkeys(every))


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
