"""What `straightshot edit measure` prints."""

import json
from dataclasses import asdict
from pathlib import Path

from components.editing.measure import EditMeasurement, EditResults
from components.editing.picture import draw_results
from components.evaluation.bootstrap import Interval
from dags.cli.console import console, plain_table

COLUMNS = ("edit", "by", ">steps", ">RMSE", ">95%", ">judge distance", ">95%", ">exact", ">95%")


def print_measurement(measured: EditMeasurement) -> None:
    """The protocol, then a row for each answer to each edit."""
    terminal, table = console(), plain_table(*COLUMNS)
    for row in measured.rows:
        cells = [*_cells(row.rmse, ".1f"), *_cells(row.judge_distance, ".4f"), *_cells(row.exact, ".2f")]
        table.add_row(row.edit, row.method, str(row.steps or "–"), *cells)
    terminal.print(table)
    for line in _protocol(measured):
        terminal.print(line, markup=False, highlight=False, soft_wrap=True)


def write_picture(results: EditResults, path: Path) -> None:
    """Write what was given, what was made of it and the truth of the first images, as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_results(results).save(path, "PNG", optimize=True)


def measurement_json(measured: EditMeasurement) -> str:
    """All of it, as JSON."""
    return json.dumps(asdict(measured), indent=2)


def _protocol(measured: EditMeasurement) -> list[str]:
    true, _ = _cells(measured.truth_exact, ".2f")
    return [
        "",
        f"{measured.images} held-out images with their own long captions as they are, seed {measured.seed}:",
        *(f"  {edit}: {how}" for edit, how in measured.protocol.items()),
        "RMSE: over the unknown part only, in levels of 255. Judge distance: 1 - cosine of the judge's"
        " features of result and truth.",
        f"Exact: the share of the {measured.scored} whose captions the scorer reads that show what the"
        f" caption says and nothing else; of the truth itself {true}.",
    ]


def _cells(interval: Interval | None, form: str) -> tuple[str, str]:
    if interval is None:
        return "–", "–"
    return f"{interval.mean:{form}}", f"{interval.low:{form}}–{interval.high:{form}}"
