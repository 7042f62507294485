"""study: every model of a study measured alike, and their table.

    HOME/study/<fingerprint>/cells/<number>-<variant>-<seed>.json, table.json, figure.svg

Its inputs are the models, which run.py has had made; one model is one part, so a killed study goes on where
it was.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.studies.definition import Measure, Study
from components.studies.table import StudyTable, tabulate
from pipelines.errors import StageFailed
from pipelines.stage import Input, Stage, StageConfig, Work
from pipelines.stages.learning.evaluate_config import EvaluateConfig
from pipelines.store.mirror import fetch_files
from pipelines.store.receipts import MODEL, PartReceipt, Receipt

if TYPE_CHECKING:
    from pipelines.stages.learning.evaluation_inputs import EvaluationInputs

TABLE_FILE, FIGURE_FILE = "table.json", "figure.svg"


class StudyConfig(StageConfig):
    """The study, and how its models are measured."""

    name: str
    study: Study
    seeds: int
    evaluate: EvaluateConfig


def run(work: Work) -> Iterator[PartReceipt]:
    """Measure every model, then write the table. Inputs `model`: variant by variant, seed by seed."""
    from components.reporting.plots import plot_study

    config: StudyConfig = work.config
    models = iter(work.inputs["model"])
    inputs: EvaluationInputs | None = None
    values: dict[str, list[Mapping[str, float]]] = {}
    parts = []
    with work.progress.task(work.stage, len(work.inputs["model"]), "models") as advance:
        for number, variant in enumerate(config.study.variants):
            for seed in range(config.seeds):
                name, model = f"{number}-{_slug(variant)}-{seed}", next(models)
                part = work.parts.finished(name)
                if part is None:
                    inputs = _inputs(work, model, inputs)
                    part = _measured_part(work, name, inputs)
                advance(1, f"{variant}, seed {seed}")
                values.setdefault(variant, []).append(part.info["values"])
                parts.append(part)
    table = tabulate(config.name, config.study, values)
    figure = plot_study(table)
    summary = work.parts.write(
        "summary",
        {
            TABLE_FILE: lambda path: path.write_text(table.to_json(), encoding="utf-8"),
            FIGURE_FILE: lambda path: path.write_text(figure, encoding="utf-8"),
        },
    )
    yield from [*parts, summary]


def read_table(home: Path, receipt: Receipt) -> StudyTable:
    """The table of a finished study. Raises InputError where it is none, OSError where it is not there."""
    out = home / STAGE.name / receipt.fingerprint
    fetch_files(out, [entry for entry in receipt.files if entry.path == TABLE_FILE])
    return StudyTable.from_json((out / TABLE_FILE).read_text(encoding="utf-8"))


def _inputs(work: Work, model: Input, before: "EvaluationInputs | None") -> "EvaluationInputs":
    """What one model is measured with; of the model before what depends on none."""
    from pipelines.stages.learning.evaluation_inputs import EvaluationInputs

    folder = model.path / MODEL
    if before is not None:
        return before.with_model(folder)
    return EvaluationInputs.of_model(
        work.config.evaluate, work.input("annotators"), work.inputs["shard"], folder
    )


def _measured_part(work: Work, name: str, inputs: "EvaluationInputs") -> PartReceipt:
    """One model at every number of steps that the study's measures ask for."""
    study: Study = work.config.study
    own = inputs.own_steps(study.model)
    entries = {
        steps: inputs.measure(study.model, steps, lambda _: None).evaluation.to_entry()
        for steps in sorted({measure.steps or own for measure in study.measures})
    }
    values = {
        measure.label: _value(entries[measure.steps or own], measure, work.config.name)
        for measure in study.measures
    }
    text = json.dumps({str(steps): entry for steps, entry in entries.items()}, indent=1) + "\n"
    return work.parts.write(
        name,
        {f"cells/{name}.json": lambda path: path.write_text(text, encoding="utf-8")},
        info={"values": values},
    )


def _value(entry: Mapping[str, Any], measure: Measure, study: str) -> float:
    """The number that a measure names. Raises StageFailed where it was not measured."""
    value: Any = entry
    for name in measure.value.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, int | float):
        raise StageFailed(
            f"study {study}: '{measure.label}' is {measure.value}, which was not measured; an evaluation has"
            f" {', '.join(sorted(entry))}, and prompt following only of the toy web"
        )
    return float(value)


def _slug(variant: str) -> str:
    """A variant's name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", variant.lower()).strip("-")


INPUTS = ("annotators", "shard", "model")
STAGE = Stage(name="study", version=1, config_type=StudyConfig, inputs=INPUTS, run=run)
