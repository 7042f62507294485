"""Plots as SVG text that follows the page's colours.

Matplotlib renders them; each colour is then written as `var(--name, #hex)`, so that a page with a dark theme
recolours them and a viewer without one (MLflow, a README) sees the colour named here. Same data, same bytes.
"""

import io
import math
import re
from collections.abc import Sequence
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
from components.evaluation.results import Evaluation

COLOURS = {
    "teacher": "#3355cc",
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
WIDE_RANGE = 12.0  # a loss that falls by more than this factor is plotted on a logarithmic axis


@dataclass(frozen=True)
class LossCurve:
    """A loss against images seen; `model` (teacher or student) gives its colour."""

    stage: str
    model: str
    images_seen: Sequence[float]
    values: Sequence[float]

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


def plot_quality(evaluations: Sequence[Evaluation]) -> str:
    """An SVG of quality against network evaluations per image, one line for each model.

    Quality is prompt following (mean over categories), or the judge's score where nothing was scored.
    """
    scored = all(e.mean is not None for e in evaluations)
    evaluations = [e for e in evaluations if _quality(e, scored) is not None]
    points = ", ".join(
        f"{e.model} in {e.steps} step{'s' * (e.steps != 1)} {_quality(e, scored):.3f}" for e in evaluations
    )
    description = f"Quality against network evaluations: {points}"
    with _style():
        figure, axes = _axes(width=4.9, height=3.1)
        for model in dict.fromkeys(e.model for e in evaluations):
            line = sorted((e for e in evaluations if e.model == model), key=lambda e: e.network_evaluations)
            _plot_quality(axes, model, line, [q for e in line if (q := _quality(e, scored)) is not None])
        every = sorted({e.network_evaluations for e in evaluations})
        axes.set_xscale("log")
        axes.set_xticks(every, [str(count) for count in every])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("network evaluations per image (log)")
        axes.set_ylabel("prompt following, mean" if scored else "judge score")
        axes.margins(x=0.14, y=0.3)
        if scored:  # tenths around the data: a zoomed axis would make a hundredth look like a cliff
            low, high = axes.get_ylim()
            top = min(math.ceil(10 * high + 0.5) / 10, 1.05)
            axes.set_ylim(min(math.floor(10 * low - 0.5) / 10, top - LEAST_RANGE), top)
        return _to_svg(figure, description)


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


def _plot_quality(axes: Axes, model: str, line: Sequence[Evaluation], quality: Sequence[float]) -> None:
    colour = COLOURS[model]
    calls = [e.network_evaluations for e in line]
    if model == "teacher":  # the level to be reached, across the page
        axes.axhline(quality[-1], color=colour, linewidth=1, linestyle=(0, (4, 4)), alpha=0.6)
    axes.plot(calls, quality, color=colour, marker="o", markersize=6, linewidth=1.8)
    for x, y in zip(calls, quality, strict=True):
        _write(axes, f"{y:.3f}", (x, y), above=model == "teacher", far=False, side="center")
    listed = ", ".join(str(e.steps) for e in line)
    name = f"{model}, {listed} step" + "s" * (listed != "1")
    if model == "teacher":
        _write(axes, name, (calls[-1], quality[-1]), above=True, far=True, side="right", colour=colour)
    else:
        _write(axes, name, (calls[0], min(quality)), above=False, far=True, side="left", colour=colour)


def _write(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    *,
    above: bool,
    far: bool,
    side: str,
    colour: str = COLOURS["ink"],
) -> None:
    """Write beside a point; `far` leaves room for another line between."""
    axes.annotate(
        text,
        at,
        xytext=({"left": -14, "center": 0, "right": 14}[side], (22 if far else 8) * (1 if above else -1)),
        textcoords="offset points",
        ha=side,
        va="bottom" if above else "top",
        color=colour,
    )


def _quality(evaluation: Evaluation, scored: bool) -> float | None:
    return evaluation.mean if scored else evaluation.metrics.get("judge_score")


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
