"""evaluate: teacher and student on held-out prompts, measured by pixels, judge and Fréchet distance.

    HOME/evaluate/<fingerprint>/samples/teacher-50.parquet, samples/student-1.parquet, ...
                                metrics.json, timings.json, samples.png, quality.svg

One model at one number of steps is one part, so a killed evaluation goes on where it was. The same seed gives
every model the same noise. timings.json is no part of the content digest. Everything goes to MLflow too.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.evaluation.results import METRICS_FILE, SECONDS, TIMINGS_FILE, Evaluation, Metrics
from pipelines.registry.mlflow_store import Tracker
from pipelines.stage import Stage, Work
from pipelines.stages.evaluate_config import EvaluateConfig
from pipelines.store.receipts import Counts, PartReceipt

if TYPE_CHECKING:
    from PIL import Image

    from components.evaluation.measure import MeasuredModel
    from pipelines.stages.evaluation_inputs import EvaluationInputs

GRID, CURVE = "samples.png", "quality.svg"
SAMPLES = "samples/"

SAMPLE_ROWS = pa.schema(
    [
        ("index", pa.int32()),
        ("prompt", pa.string()),
        ("caption", pa.string()),  # what the image was generated from
        ("category", pa.string()),  # null where no scorer covers the domain
        ("model", pa.string()),
        ("steps", pa.int32()),
        ("seed", pa.int64()),
        ("correct", pa.bool_()),  # the scorer's verdict
        ("judge_score", pa.float32()),
        ("image", pa.binary()),  # PNG; null for prompts whose images are not kept
    ]
)


def run(work: Work) -> Iterator[PartReceipt]:
    """Measure every model at every number of steps, then write and log the results."""
    from pipelines.stages.evaluation_inputs import EvaluationInputs

    config: EvaluateConfig = work.config
    inputs = EvaluationInputs(work, config)
    work.info.update(inputs.protocol)
    runs = [("teacher", steps) for steps in config.teacher_steps]
    runs += [("student", steps) for steps in config.student_steps]
    with work.progress.task(work.stage, len(runs) * len(inputs.prompts), "images") as advance:
        parts = [_measured_part(work, inputs, model, steps, advance) for model, steps in runs]
    evaluations = tuple(
        Evaluation.from_entry(model, steps, part.info["evaluation"], part.info[SECONDS])
        for (model, steps), part in zip(runs, parts, strict=True)
    )
    metrics = Metrics(evaluations, inputs.scorer_accuracy(), inputs.protocol)
    tables = [work.out / part.files[0].path for part in parts]
    summary = _summary_part(work, metrics, tables)
    work.info["mlflow_run"] = _track(work, metrics, tables)
    yield from [*parts, summary]


def _measured_part(
    work: Work, inputs: "EvaluationInputs", model: str, steps: int, advance: Any
) -> PartReceipt:
    """One model at one number of steps: found finished, or generated and measured."""
    name = f"{model}-{steps}"
    if (finished := work.parts.finished(name)) is not None:
        advance(finished.counts.in_)
        return finished
    measured = inputs.measure(model, steps, lambda count: advance(count, f"{model}, {steps} steps"))
    table = pa.Table.from_pylist(_rows(inputs, measured), schema=SAMPLE_ROWS)
    return work.parts.write(
        name,
        {f"{SAMPLES}{name}.parquet": partial(pq.write_table, table)},
        counts=Counts.model_validate({"in": len(table), "kept": len(table)}),
        info={
            "evaluation": measured.evaluation.to_entry(),
            SECONDS: measured.evaluation.seconds_per_image,
        },
    )


def _rows(inputs: "EvaluationInputs", measured: "MeasuredModel") -> list[dict[str, Any]]:
    """The table of one part: a row for each prompt."""
    kept = inputs.kept
    return [
        {
            "index": index,
            "prompt": prompt.text,
            "caption": inputs.captions[index],
            "category": prompt.category,
            "model": measured.evaluation.model,
            "steps": measured.evaluation.steps,
            "seed": inputs.config.seed,
            "correct": measured.correct[index],
            "judge_score": float(measured.judge_scores[index]),
            "image": _png(measured.images[index]) if index in kept else None,
        }
        for index, prompt in enumerate(inputs.prompts)
    ]


def _summary_part(work: Work, metrics: Metrics, tables: Sequence[Path]) -> PartReceipt:
    """metrics.json, timings.json, the sample grid and the curve."""
    from components.reporting.plots import plot_quality

    grid, curve = _grid(tables), plot_quality(metrics.evaluations)
    return work.parts.write(
        "summary",
        {
            METRICS_FILE: lambda path: path.write_text(metrics.to_json(), encoding="utf-8"),
            TIMINGS_FILE: lambda path: path.write_text(metrics.timings_json(), encoding="utf-8"),
            GRID: lambda path: grid.save(path, "PNG"),
            CURVE: lambda path: path.write_text(curve, encoding="utf-8"),
        },
        timings=(TIMINGS_FILE,),
    )


def _grid(tables: Iterable[Path]) -> "Image.Image":
    """The images that were kept, one row a prompt, one column a model and its steps."""
    import numpy as np
    from PIL import Image

    from components.reporting.grid import GridColumn, draw_grid

    prompts: list[str] = []
    columns = []
    for path in tables:
        rows = [row for row in pq.ParquetFile(path).read().to_pylist() if row["image"] is not None]
        prompts = [row["prompt"] for row in rows]
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["image"]))) for row in rows])
        columns.append(GridColumn(rows[0]["model"], rows[0]["steps"], pixels))
    return draw_grid(prompts, columns)


def _track(work: Work, metrics: Metrics, tables: Sequence[Path]) -> str:
    """Everything to MLflow: curves, a point per number of steps, tables, grid, digests. Gives the run id."""
    params = work.config.model_dump(mode="json")
    tracker = Tracker(work.home, work.tracking_uri)
    with tracker.run(work.stage, work.fingerprint, params=params, datasets=work.input_digests) as tracked:
        for evaluation in metrics.evaluations:
            tracked.log_metrics(_numbers(evaluation), step=evaluation.network_evaluations)
        tracked.log_metrics({f"scorer.{name}": value for name, value in metrics.scorer.items()})
        tracked.log_table(
            [_table_row(evaluation) for evaluation in metrics.evaluations], "tables/evaluations.json"
        )
        tracked.log_table(_prompt_rows(tables), "tables/prompts.json")
        for name in (METRICS_FILE, TIMINGS_FILE, GRID, CURVE):
            tracked.log_artifact(work.out / name)
        return tracked.id


def _numbers(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation as MLflow metrics; their step is the network evaluations of an image."""
    named = {
        **evaluation.metrics,
        SECONDS: evaluation.seconds_per_image,
        **{f"prompt_following.{name}": value for name, value in evaluation.prompt_following.items()},
        "prompt_following.mean": evaluation.mean,
    }
    return {f"{evaluation.model}.{name}": value for name, value in named.items() if value is not None}


def _table_row(evaluation: Evaluation) -> dict[str, Any]:
    entry = {**evaluation.to_entry(), SECONDS: evaluation.seconds_per_image}
    return {"model": evaluation.model, "steps": evaluation.steps, **entry.pop("prompt_following"), **entry}


def _prompt_rows(tables: Iterable[Path]) -> list[dict[str, Any]]:
    """Every prompt of every model, without its image."""
    columns = [name for name in SAMPLE_ROWS.names if name != "image"]
    read = [pq.ParquetFile(path).read(columns=columns) for path in tables]
    rows: list[dict[str, Any]] = pa.concat_tables(read).to_pylist()
    return rows


def _png(pixels: Any) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


INPUTS = ("annotators", "shard", "train", "distill")
STAGE = Stage(name="evaluate", version=2, config_type=EvaluateConfig, inputs=INPUTS, run=run)
