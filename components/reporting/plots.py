"""Plots as SVG text that follows the page's colours.

Matplotlib renders them; each colour is then written as `var(--name, #hex)`, so that a page with a dark theme
recolours them and a viewer without one (MLflow, a README) sees the colour named here. Same data, same bytes.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from components.errors import InputError
from components.evaluation.bootstrap import Interval
from components.evaluation.results import TEACHER, UNDISTILLED, Evaluation, mean_share
from components.studies.table import Estimate, StudyTable

COLOURS = {
    "teacher": "#3355cc",
    "undistilled": "#6b7f95",
    "student": "#cc4a10",
    "ink": "#151a23",
    "muted": "#5b6574",
    "line": "#d9dee7",
    "surface": "#fefefe",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
POINTS = 400  # at most this many points of a curve are plotted; a page needs no more than its pixels
SMOOTHING = 0.04  # width of the running mean, as a share of the curve
LEAST_RANGE = 0.45  # of the axis of prompt following
LOWEST = -0.08  # of that axis: a share is never below 0, and its number stands below it
WIDE_RANGE = 12.0  # a loss that falls by more than this factor is plotted on a logarithmic axis


@dataclass(frozen=True)
class LossCurve:
    """A loss against images seen; `model` (teacher or student) gives its colour.

    held_out: (images seen, value by the times' bin) for each measure on held-out images.
    """

    stage: str
    model: str
    images_seen: Sequence[float]
    values: Sequence[float]
    held_out: Sequence[tuple[float, Mapping[str, float]]] = ()

    def smoothed(self) -> npt.NDArray[np.float64]:
        """The running mean of `values`, of the same length; the window is cut at the ends."""
        values = np.asarray(self.values, dtype=np.float64)
        half = int(len(values) * SMOOTHING / 2)
        total = np.concatenate([[0.0], np.cumsum(values)])
        first = np.maximum(np.arange(len(values)) - half, 0)
        end = np.minimum(np.arange(len(values)) + half + 1, len(values))
        return np.asarray((total[end] - total[first]) / (end - first))


def plot_losses(curves: Sequence[LossCurve]) -> str:
    """An SVG of losses: every value faint, the running mean plain, the last mean written at its end.

    Values that are not finite are left out. Raises InputError where no finite value is left.
    """
    finite = [_finite(curve) for curve in curves]
    description = "; ".join(
        f"Loss of {curve.stage} over {curve.images_seen[-1]:,.0f} images: from {curve.smoothed()[0]:.3g} to "
        f"{curve.smoothed()[-1]:.3g}"
        for curve in finite
    )
    with _style():
        figure, axes = _axes(width=4.9, height=2.9)
        raw = np.concatenate([_plot_loss(axes, curve) for curve in finite])
        if raw.min() > 0 and raw.max() / raw.min() > WIDE_RANGE:
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("images seen")
        axes.set_ylabel("loss")
        axes.xaxis.set_major_formatter(FuncFormatter(_short_number))
        axes.margins(x=0.02)
        return _to_svg(figure, description)


def plot_quality(evaluations: Sequence[Evaluation], *, upsampled: bool = True) -> str:
    """An SVG of quality against network evaluations per image, one line for each model.

    Quality is exact prompt following (mean over forms) with its 95% interval: by the default command, or
    with `upsampled` False of the prompts as they are. It is the judge's score where nothing was scored.
    """
    name = "prompt_following" if upsampled else "prompt_following_as_is"
    scored = any(getattr(e, name) for e in evaluations)
    points = [(e, value) for e in evaluations if (value := _quality(e, name, scored)) is not None]
    listed = ", ".join(
        f"{e.model} in {e.steps} step{'s' * (e.steps != 1)} {value:.3f}" for e, value in points
    )
    with _style():
        figure, axes = _axes(width=4.9, height=3.4)
        for model in dict.fromkeys(e.model for e, _ in points):
            line = [
                QualityPoint(e.steps, e.network_evaluations, value, e.intervals.get(name) if scored else None)
                for e, value in points
                if e.model == model
            ]
            _plot_quality(axes, model, sorted(line, key=lambda point: point.network_evaluations))
        every = sorted({e.network_evaluations for e, _ in points})
        axes.set_xscale("log")
        axes.set_xticks(every, [str(count) for count in every])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("network evaluations per image (log)")
        axes.set_ylabel("exact prompt following, mean" if scored else "judge score")
        axes.margins(x=0.14, y=0.2)
        if points:
            figure.legend(loc="outside upper left", frameon=False, ncols=2, fontsize=9, handlelength=1.4)
        if scored:  # tenths around the data: a zoomed axis would make a hundredth look like a cliff
            low, high = axes.get_ylim()
            top = min(math.ceil(10 * high + 0.5) / 10, 1.05)
            axes.set_ylim(max(min(math.floor(10 * low - 0.5) / 10, top - LEAST_RANGE), LOWEST), top)
        return _to_svg(figure, f"Quality against network evaluations: {listed}")


def plot_study(table: StudyTable) -> str:
    """An SVG of a study: a panel a measure, a row a variant; every seed faint, the mean with its interval."""
    variants, colour = list(table.rows), COLOURS[table.model]
    with _style():
        size = (1.6 + 2.3 * len(table.measures), 0.9 + 0.34 * len(variants))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(table.measures), sharey=True, squeeze=False)[0]
        for column, (axes, measure) in enumerate(zip(panels, table.measures, strict=True)):
            for row, cells in enumerate(table.rows.values()):
                _plot_estimate(axes, row, cells[column], colour)
            axes.set_title(measure, fontsize=10)
            axes.set_yticks(range(len(variants)), variants)
            axes.grid(axis="x")
            axes.margins(x=0.12, y=0.12)
        panels[0].invert_yaxis()
        listed = (
            f"{variant}: {', '.join(f'{cell.mean:.3f}' for cell in cells)}"
            for variant, cells in table.rows.items()
        )
        return _to_svg(figure, f"{table.title}, {', '.join(table.measures)}. {'; '.join(listed)}")


def _plot_estimate(axes: Axes, row: int, cell: Estimate, colour: str) -> None:
    axes.plot(cell.values, [row] * len(cell.values), "o", color=colour, alpha=0.3, markersize=4)
    axes.plot([cell.mean], [row], "o", color=colour, markersize=6)
    if cell.low is not None and cell.high is not None:
        axes.plot([cell.low, cell.high], [row, row], color=colour, linewidth=1.4, alpha=0.7)


def _plot_loss(axes: Axes, curve: LossCurve) -> npt.NDArray[np.float64]:
    """Plot one curve; returns the values plotted."""
    keep = np.unique(np.linspace(0, len(curve.values) - 1, POINTS).round().astype(int))
    seen, raw = np.asarray(curve.images_seen, dtype=np.float64)[keep], np.asarray(curve.values)[keep]
    mean = curve.smoothed()[keep]
    colour = COLOURS[curve.model]
    axes.plot(seen, raw, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(seen, mean, color=colour, linewidth=1.8)
    axes.annotate(
        f"{curve.stage} {mean[-1]:.3g}",
        (seen[-1], mean[-1]),
        xytext=(0, 12),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=COLOURS["ink"],
    )
    return np.asarray(raw, dtype=np.float64)


@dataclass(frozen=True)
class QualityPoint:
    """One model at one number of steps, as plot_quality places it."""

    steps: int
    network_evaluations: int
    quality: float
    interval: Interval | None


def _plot_quality(axes: Axes, model: str, line: Sequence[QualityPoint]) -> None:
    """One model's line, its intervals, and each number beside its point: above, or below the undistilled."""
    colour = COLOURS[model]
    calls, quality = [p.network_evaluations for p in line], [p.quality for p in line]
    if model == TEACHER:  # the level to be reached, across the page
        axes.axhline(quality[-1], color=colour, linewidth=1, linestyle=(0, (4, 4)), alpha=0.6)
    listed = ", ".join(str(point.steps) for point in line)
    label = f"{model}, {listed} step" + "s" * (listed != "1")
    dashes = (0, (3, 2)) if model == UNDISTILLED else "-"
    axes.plot(
        calls, quality, color=colour, marker="o", markersize=5, linewidth=1.8, linestyle=dashes, label=label
    )
    for point in line:
        if point.interval is not None:
            ends = [point.interval.low, point.interval.high]
            axes.plot([point.network_evaluations] * 2, ends, color=colour, linewidth=1.2, alpha=0.7)
        below = model == UNDISTILLED
        end = point.interval or Interval(point.quality, point.quality, point.quality)
        axes.annotate(
            f"{point.quality:.3f}",
            (point.network_evaluations, end.low if below else end.high),
            xytext=(0, -6 if below else 6),
            textcoords="offset points",
            ha="center",
            va="top" if below else "bottom",
            color=COLOURS["muted"] if below else COLOURS["ink"],
        )


def _quality(evaluation: Evaluation, name: str, scored: bool) -> float | None:
    if scored:
        return mean_share(getattr(evaluation, name))
    return evaluation.metrics.get("judge_score")


def _finite(curve: LossCurve) -> LossCurve:
    values = np.asarray(curve.values, dtype=np.float64)
    keep = np.isfinite(values)
    if not keep.any():
        raise InputError(
            f"the loss curve of {curve.stage} has no finite value to plot; look at its training log"
        )
    seen = np.asarray(curve.images_seen, dtype=np.float64)
    return LossCurve(curve.stage, curve.model, seen[keep].tolist(), values[keep].tolist())


def _style() -> Any:
    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and restyled
            "svg.hashsalt": "straightshot",  # element ids by content, not by chance
            "font.size": 10.5,
            "text.color": COLOURS["ink"],
            "axes.labelcolor": COLOURS["muted"],
            "axes.edgecolor": COLOURS["line"],
            "axes.grid": True,
            "axes.grid.axis": "y",
            "axes.axisbelow": True,
            "grid.color": COLOURS["line"],
            "grid.linewidth": 0.8,
            "xtick.color": COLOURS["muted"],
            "ytick.color": COLOURS["muted"],
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "ytick.major.size": 0,
        }
    )


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _to_svg(figure: Figure, description: str) -> str:
    """The figure as one <svg> element that can stand in a page or alone in a file."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would reach into the whole page
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # figure_1, axes_1: not unique in a page of several
    svg = re.sub(r"font-family: [^;\"]*", f"font-family: {FONT}", svg)
    for name, hexadecimal in COLOURS.items():
        svg = svg.replace(hexadecimal, f"var(--{name}, {hexadecimal})")
    head = f'<svg role="img" aria-label="{escape(description)}" stroke-linejoin="round" '
    return head + svg[len("<svg ") :]


def _short_number(value: float, _position: int = 0) -> str:
    """12000 as 12k, 2500000 as 2.5M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
