"""evaluate: teacher, undistilled teacher and student on held-out prompts and held-out images.

    HOME/evaluate/<fingerprint>/samples/teacher-25.parquet, samples/student-1.parquet, ...
                                metrics.json, timings.json, samples.png, quality.svg

One model at one number of steps is one part, so a killed evaluation goes on where it was. The same seed gives
every model the same noise. The samples' tables hold the verdict on every prompt, so that two models can be
compared prompt by prompt. timings.json is no part of the content digest. Everything goes to MLflow too.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.evaluation.results import (
    METRICS_FILE,
    SHARES,
    TIMINGS_FILE,
    Evaluation,
    Metrics,
    mean_share,
)
from pipelines.registry.mlflow_store import Tracker
from pipelines.stage import Stage, Work
from pipelines.stages.learning.evaluate_config import EvaluateConfig
from pipelines.store.receipts import Counts, PartReceipt

if TYPE_CHECKING:
    from PIL import Image

    from components.evaluation.measure import MeasuredModel, PromptResult
    from pipelines.stages.learning.evaluation_inputs import EvaluationInputs

GRID, CURVE = "samples.png", "quality.svg"
SAMPLES = "samples/"
KEPT_OF_EACH = 2  # images kept of each mode, form and verdict, besides those of the grid's prompts

SAMPLE_ROWS = pa.schema(
    [
        ("index", pa.int32()),  # of the prompt
        ("prompt", pa.string()),
        ("caption", pa.string()),  # what the image was generated from
        ("how", pa.string()),  # how the caption came about
        ("form", pa.string()),  # null where no scorer covers the domain
        ("category", pa.string()),  # GenEval's; null for other forms
        ("mode", pa.string()),  # default | as_is
        ("model", pa.string()),
        ("steps", pa.int32()),
        ("seed", pa.int64()),
        ("correct", pa.bool_()),  # the scorer's verdict: exactly what the prompt says
        ("geneval", pa.bool_()),  # by GenEval's looser rules
        ("judge_score", pa.float32()),
        ("image", pa.binary()),  # PNG; null for those that are not kept
    ]
)


def run(work: Work) -> Iterator[PartReceipt]:
    """Measure every model at every number of steps, then write and log the results."""
    from pipelines.stages.learning.evaluation_inputs import EvaluationInputs

    inputs = EvaluationInputs.of_stage(work)
    work.info.update(inputs.protocol)
    with work.progress.task(work.stage, len(inputs.runs) * inputs.data.images, "images") as advance:
        parts = [_measured_part(work, inputs, model, steps, advance) for model, steps in inputs.runs]
    metrics = Metrics(
        evaluations=tuple(
            Evaluation.from_entry(model, steps, part.info["evaluation"]).with_timings(part.info["timings"])
            for (model, steps), part in zip(inputs.runs, parts, strict=True)
        ),
        scorer=inputs.scorer_accuracy(),
        protocol=inputs.protocol,
        floors=inputs.floors(),
    )
    tables = [work.out / part.files[0].path for part in parts]
    summary = _summary_part(work, metrics, tables, inputs.shown)
    work.info["mlflow_run"] = _track(work, metrics, tables)
    yield from [*parts, summary]


def _measured_part(
    work: Work, inputs: "EvaluationInputs", model: str, steps: int, advance: Any
) -> PartReceipt:
    """One model at one number of steps: found finished, or generated and measured."""
    name = f"{model}-{steps}"
    if (finished := work.parts.finished(name)) is not None:
        advance(finished.info["evaluation"]["images"])
        return finished
    measured = inputs.measure(model, steps, lambda count: advance(count, f"{model}, {steps} steps"))
    table = pa.Table.from_pylist(_rows(inputs, measured), schema=SAMPLE_ROWS)
    return work.parts.write(
        name,
        {f"{SAMPLES}{name}.parquet": partial(pq.write_table, table)},
        counts=Counts.model_validate({"in": len(table), "kept": len(table)}),
        info={"evaluation": measured.evaluation.to_entry(), "timings": measured.evaluation.timings()},
    )


def _rows(inputs: "EvaluationInputs", measured: "MeasuredModel") -> list[dict[str, Any]]:
    """The table of one part: a row for each prompt in each mode."""
    kept = _kept(inputs, measured.results)
    return [
        {
            "index": result.index,
            "prompt": prompt.text,
            "caption": result.caption,
            "how": result.how,
            "form": prompt.form,
            "category": prompt.category,
            "mode": result.mode,
            "model": measured.evaluation.model,
            "steps": measured.evaluation.steps,
            "seed": inputs.config.seed,
            "correct": result.correct,
            "geneval": result.geneval,
            "judge_score": result.judge_score,
            "image": _png(result.image) if row in kept else None,
        }
        for row, result in enumerate(measured.results)
        for prompt in [inputs.prompts[result.index]]
    ]


def _kept(inputs: "EvaluationInputs", results: Sequence["PromptResult"]) -> set[int]:
    """Rows whose images are kept: of the grid's prompts, and some right and some wrong ones of each form."""
    kept = {row for row, result in enumerate(results) if result.index in inputs.shown}
    counts: dict[tuple[str, str | None, bool | None], int] = {}
    for row, result in enumerate(results):
        kind = (result.mode, inputs.prompts[result.index].form, result.correct)
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] <= KEPT_OF_EACH:
            kept.add(row)
    return kept


def _summary_part(work: Work, metrics: Metrics, tables: Sequence[Path], shown: set[int]) -> PartReceipt:
    """metrics.json, timings.json, the sample grid and the curve."""
    from components.reporting.plots import plot_quality

    grid, curve = _grid(tables, shown), plot_quality(metrics.evaluations)
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


def _grid(tables: Iterable[Path], shown: set[int]) -> "Image.Image":
    """The images of the `shown` prompts by the default command: a row a prompt, a column a model at steps."""
    import numpy as np
    from PIL import Image

    from components.reporting.grid import GridColumn, draw_grid

    prompts: list[str] = []
    columns = []
    for path in tables:
        every = pq.ParquetFile(path).read().to_pylist()
        rows = [row for row in every if row["index"] in shown and row["mode"] == "default"]
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
        tracked.log_metrics({f"floor.{name}": value for name, value in metrics.floors.items()})
        tracked.log_table(
            [_table_row(evaluation) for evaluation in metrics.evaluations], "tables/evaluations.json"
        )
        tracked.log_table(_prompt_rows(tables), "tables/prompts.json")
        for name in (METRICS_FILE, TIMINGS_FILE, GRID, CURVE):
            tracked.log_artifact(work.out / name)
        return tracked.id


def _numbers(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation as MLflow metrics; their step is the network evaluations of an image."""
    return {f"{evaluation.model}.{name}": value for name, value in _flat(evaluation).items()}


def _table_row(evaluation: Evaluation) -> dict[str, Any]:
    return {"model": evaluation.model, "steps": evaluation.steps, **_flat(evaluation)}


def _flat(evaluation: Evaluation) -> dict[str, float]:
    """Every number of it by a dotted name, such as prompt_following.short and prompt_following.mean."""
    shares: dict[str, float] = {}
    for group in SHARES:
        of_group = getattr(evaluation, group)
        mean = mean_share(of_group)
        named = of_group if mean is None else {**of_group, "mean": mean}
        shares |= {f"{group}.{name}": value for name, value in named.items()}
    for name, interval in evaluation.intervals.items():
        shares |= {f"{name}.low": interval.low, f"{name}.high": interval.high}
    return {**shares, **evaluation.metrics, **evaluation.timings()}


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
STAGE = Stage(name="evaluate", version=4, config_type=EvaluateConfig, inputs=INPUTS, run=run)
