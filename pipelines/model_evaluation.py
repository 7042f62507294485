"""The evaluation of any one model again: a registered one, or a model folder.

With the config of the last run under HOME, its judge and its shards, on the same prompts and noise as the
evaluate stage: of a model that the stage measured under this config, the same numbers to the bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.evaluation.results import METRICS_FILE, STUDENT, TEACHER, Metrics, comparable, read_metrics
from pipelines.config import RunConfig, refuse_config, saved_config
from pipelines.errors import ConfigError
from pipelines.execution.progress import Progress
from pipelines.pipeline import Pipeline
from pipelines.registry.model_registry import resolve
from pipelines.store.outputs import FORCED, readable_receipt
from pipelines.store.receipts import MODEL, RECEIPT, Receipt, sha256_file

if TYPE_CHECKING:
    from pipelines.stages.learning.evaluation_inputs import EvaluationInputs

STAGES_OF = {TEACHER: "train", STUDENT: "distill"}  # model -> the stage that makes it
GIVEN = ("annotators", "shard")  # inputs of evaluate that measure; the others are measured


@dataclass(frozen=True)
class Difference:
    """One number that is not as it was recorded; None where it is missing."""

    name: str  # such as student.1.frechet
    recorded: float | None
    measured: float | None


@dataclass(frozen=True)
class ModelEvaluation:
    """What was measured now, beside what the evaluate stage recorded of the same model under HOME.

    recorded: its metrics.json, None where there is none. same_protocol: whether the numbers compare; where
    they do not, no differences are looked for.
    """

    model: str  # as it was asked for
    folder: Path
    metrics: Metrics
    recorded: Path | None
    same_protocol: bool
    differences: tuple[Difference, ...]


def evaluate_model(model: str, home: Path, progress: Progress, uri: str | None = None) -> ModelEvaluation:
    """Measure a model under the config of the last run. Writes nothing.

    model: champion | challenger | previous | a version | models:/... | a model folder. Raises ConfigError
    where there was no run, the model is not there, or the judge or the shards are not up to date.
    """
    config = config_to_measure_with(home)
    folder = resolve(model, home, uri, config.promote.registered_name)
    inputs = _inputs(config, home, folder, progress)
    with progress.task("evaluate", len(inputs.runs) * inputs.data.images, "images") as advance:
        measured = [inputs.measure(name, steps, advance) for name, steps in inputs.runs]
    metrics = Metrics(
        evaluations=tuple(one.evaluation for one in measured),
        scorer=inputs.scorer_accuracy(),
        protocol=inputs.protocol,
        floors=inputs.floors(),
    )
    recorded = _recorded(home, folder, metrics)
    if recorded is None:
        return ModelEvaluation(model, folder, metrics, None, False, ())
    before = read_metrics(recorded)
    same = comparable(before.protocol, metrics.protocol)
    return ModelEvaluation(
        model, folder, metrics, recorded, same, differences(before, metrics) if same else ()
    )


def config_to_measure_with(home: Path) -> RunConfig:
    """The config of the last run. Raises ConfigError where there was none, or it does not fit."""
    config = saved_config(home, refuse_config)
    if config is None:
        raise ConfigError(
            f"{home}: there was no run, so there is no judge and no held-out image to measure with; make them"
            " with `straightshot run`"
        )
    return config


def differences(recorded: Metrics, measured: Metrics) -> tuple[Difference, ...]:
    """The numbers that differ, of models at steps that both have; those of the scorer and the floors too."""
    before, now = _numbers(recorded), _numbers(measured)
    both = {group for group in before if group in now}
    return tuple(
        Difference(f"{group}.{name}", before[group].get(name), now[group].get(name))
        for group in before
        if group in both
        for name in dict.fromkeys([*before[group], *now[group]])
        if before[group].get(name) != now[group].get(name)
    )


def _inputs(config: RunConfig, home: Path, folder: Path, progress: Progress) -> "EvaluationInputs":
    """What the stage measures with, for this model alone."""
    from pipelines.stages.learning.evaluation_inputs import EvaluationInputs

    given = Pipeline(config, home, progress=progress).inputs.some_of("evaluate", GIVEN)
    (annotators,) = given["annotators"]
    return EvaluationInputs.of_model(config.evaluate, annotators, given["shard"], folder)


def _recorded(home: Path, folder: Path, metrics: Metrics) -> Path | None:
    """metrics.json of the evaluate output that measured this very model: the newest that compares, if any."""
    files = {
        path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()
    }
    made_by = {
        (stage, receipt.fingerprint)
        for stage in STAGES_OF.values()
        for receipt in _receipts(home / stage)
        if _model_files(receipt) == files
    }
    found = [
        home / "evaluate" / receipt.fingerprint / METRICS_FILE
        for receipt in _receipts(home / "evaluate")
        if made_by & {(stage, name) for stage, of in receipt.input_fingerprints.items() for name in of}
    ]
    found = [path for path in found if path.is_file()]
    same = [path for path in found if comparable(read_metrics(path).protocol, metrics.protocol)]
    return next(iter([*same, *found]), None)


def _receipts(outputs: Path) -> Iterator[Receipt]:
    """The receipts of a stage's outputs, the newest first; what cannot be read is left out."""
    paths = sorted(outputs.glob(f"*/{RECEIPT}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in paths:
        if path.parent.name.endswith(FORCED):
            continue
        if (receipt := readable_receipt(path.parent)) is not None:
            yield receipt


def _model_files(receipt: Receipt) -> Mapping[str, str]:
    return {entry.path: entry.sha256 for entry in receipt.files_in(MODEL)}


def _numbers(metrics: Metrics) -> dict[str, dict[str, float]]:
    """Every number by the model and steps that it is of (or scorer, floors), and its dotted name."""
    groups = {f"{e.model}.{e.steps}": _flat(e.to_entry()) for e in metrics.evaluations}
    return {**groups, "scorer": dict(metrics.scorer), "floors": dict(metrics.floors)}


def _flat(value: Any, prefix: str = "") -> dict[str, float]:
    if isinstance(value, Mapping):
        items = [(str(name), inner) for name, inner in value.items()]
    elif isinstance(value, list):
        items = list(zip(("low", "high"), value, strict=True))
    else:
        return {prefix: value}
    return {
        name: number
        for key, inner in items
        for name, number in _flat(inner, f"{prefix}.{key}" if prefix else key).items()
    }
