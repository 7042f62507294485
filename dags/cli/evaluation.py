"""What `straightshot evaluate` prints: a model's numbers, and where they are not as recorded."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from components.evaluation.bootstrap import Interval
from components.evaluation.metrics import METRICS
from components.evaluation.results import Evaluation, Metrics, mean_share
from dags.cli.console import console, plain_table
from pipelines.model_evaluation import ModelEvaluation

LISTED = 12  # differences that are printed one by one
PARTS = (
    ("Exact prompt following, by the default command", "prompt_following"),
    ("Exact prompt following, prompts as they are", "prompt_following_as_is"),
    ("GenEval's looser rules, by the default command", "geneval"),
    ("GenEval's looser rules, prompts as they are", "geneval_as_is"),
)


def print_evaluation(evaluation: ModelEvaluation) -> None:
    """The tables of forms, categories and metrics, then what differs from the recorded numbers."""
    terminal = console()
    metrics = evaluation.metrics
    for title, name in PARTS:
        if any(getattr(entry, name) for entry in metrics.evaluations):
            terminal.print(f"{title}:")
            terminal.print(_share_table(metrics.evaluations, name))
            terminal.print()
    terminal.print("Distances, each beside its floor (true renders; nearest: held-out images):")
    terminal.print(_metric_table(metrics))
    terminal.print()
    for line in comparison_lines(evaluation):
        terminal.print(line, markup=False, highlight=False, soft_wrap=True)


def evaluation_json(evaluation: ModelEvaluation) -> str:
    """The measured metrics.json, with the model and what differs from the recorded one."""
    document = {
        "model": evaluation.model,
        "folder": str(evaluation.folder),
        **json.loads(evaluation.metrics.to_json()),
        "recorded": None if evaluation.recorded is None else str(evaluation.recorded),
        "same_protocol": evaluation.same_protocol,
        "differences": [asdict(difference) for difference in evaluation.differences],
    }
    return json.dumps(document, indent=2)


def comparison_lines(evaluation: ModelEvaluation) -> list[str]:
    """What is to be said of the recorded numbers, a line each."""
    if evaluation.recorded is None:
        return ["no evaluation of this model is recorded under this home"]
    if not evaluation.same_protocol:
        return [
            f"{evaluation.recorded}: measured by another protocol (other prompts, judge, shards or settings),"
            " so it is not compared"
        ]
    if not evaluation.differences:
        return [f"the same numbers as recorded in {evaluation.recorded}"]
    lines = [f"{len(evaluation.differences)} numbers differ from those in {evaluation.recorded}:"]
    for difference in evaluation.differences[:LISTED]:
        lines.append(f"  {difference.name}: recorded {difference.recorded}, measured {difference.measured}")
    if (more := len(evaluation.differences) - LISTED) > 0:
        lines.append(f"  and {more} more; --json lists them")
    return lines


def _share_table(evaluations: Sequence[Evaluation], name: str) -> Table:
    names = list(dict.fromkeys(form for entry in evaluations for form in getattr(entry, name)))
    table = plain_table("model", ">steps", ">mean", ">95% interval", *(f">{form}" for form in names))
    for entry in evaluations:
        shares = getattr(entry, name)
        cells = (_number(shares.get(form)) for form in names)
        interval = _interval(entry.intervals.get(name))
        table.add_row(entry.model, str(entry.steps), _number(mean_share(shares)), interval, *cells)
    return table


def _metric_table(metrics: Metrics) -> Table:
    table = plain_table(
        "model", ">steps", *(f">{metric.label}" for metric in METRICS), ">ms/image", ">upsampled"
    )
    for entry in metrics.evaluations:
        cells = [metric.show(entry.metrics.get(metric.name)) for metric in METRICS]
        seconds = (entry.seconds_per_image, entry.seconds_per_image_upsampled)
        cells += ["–" if value is None else f"{1000 * value:.1f}" for value in seconds]
        table.add_row(entry.model, str(entry.steps), *cells)
    table.add_row("floor", "", *(metric.show(metrics.floors.get(metric.name)) for metric in METRICS), "", "")
    return table


def _interval(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.low:.3f}–{interval.high:.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
