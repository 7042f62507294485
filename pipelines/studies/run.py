"""Runs a study: the models of every variant and seed by the pipeline's own stages, then their table.

A model is an output like any other, of train or distill: what a run or another study has made already is
found made, and the same command again goes on where it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.studies.definition import Study
from components.studies.table import StudyTable
from pipelines.config import RunConfig, load_config
from pipelines.errors import ConfigError
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.graph import upstream
from pipelines.pipeline import Pipeline
from pipelines.stage import Input, run_stage
from pipelines.studies.stage import STAGE, StudyConfig, read_table
from pipelines.studies.trainings import note_trainings

MADE_BY = {"teacher": "train", "student": "distill"}  # model -> the stage that makes it


@dataclass(frozen=True)
class Cell:
    """One training of a study."""

    variant: str
    seed: int
    config: RunConfig


@dataclass(frozen=True)
class StudyResult:
    """A finished study, and where it lies."""

    table: StudyTable
    path: Path


def cells(study: Study, preset: str, overrides: Sequence[str], home: Path, seeds: int) -> list[Cell]:
    """Every training, variant by variant. Raises ConfigError where a variant does not fit the config, or is
    to be measured otherwise than the others.
    """
    planned = [
        Cell(
            variant,
            seed,
            load_config(
                preset,
                [*study.base, *overrides, *changes, *(f"{field}={seed}" for field in study.seeded)],
                home=home,
            ),
        )
        for variant, changes in study.variants.items()
        for seed in range(seeds)
    ]
    for cell in planned:
        if cell.config.evaluate != planned[0].config.evaluate:
            raise ConfigError(
                f"the variant '{cell.variant}' sets evaluate.*, so its numbers would not compare with those"
                f" of '{planned[0].variant}'; set it in base"
            )
    return planned


def unfinished(study: Study, planned: Sequence[Cell], home: Path) -> list[Cell]:
    """The trainings whose model is not there yet. Reads only."""
    stage = MADE_BY[study.model]
    return [
        cell
        for cell in planned
        if not next(plan.fresh for plan in Pipeline(cell.config, home).plan() if plan.stage.name == stage)
    ]


def run_study(
    name: str, study: Study, planned: Sequence[Cell], home: Path, engine: Engine, progress: Progress
) -> StudyResult:
    """Make every model that is missing, measure all, and write the table. Raises what a stage raises."""
    note_trainings(home, name, [cell.config for cell in planned])
    models: list[Input] = []
    last, made_by = None, MADE_BY[study.model]
    needed = {*upstream(made_by), made_by}
    for number, cell in enumerate(planned, start=1):
        progress.say(f"study {name}: {cell.variant}, seed {cell.seed} ({number} of {len(planned)})")
        last = Pipeline(cell.config, home, engine, progress)
        last.prepare()
        for plan in last.plan():
            if plan.stage.name in needed and not plan.fresh:
                last.run_one(plan.stage.name)
        models += last.inputs.some_of("evaluate", [made_by])[made_by]
    assert last is not None
    given = last.inputs.some_of("evaluate", ["annotators", "shard"])
    config = StudyConfig(
        name=name, study=study, seeds=1 + max(cell.seed for cell in planned), evaluate=last.config.evaluate
    )
    receipt = run_stage(
        STAGE,
        config,
        {**given, "model": tuple(models)},
        home=home,
        snapshot=last.inputs.snapshot_of("evaluate"),
        engine=engine,
        progress=progress,
    )
    note_trainings(home, name, [])
    out = home / STAGE.name / receipt.fingerprint
    return StudyResult(read_table(home, receipt), out)
