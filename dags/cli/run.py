"""`straightshot run`: plan, run what is not fresh through Dagster, and say what came of it.

A run with nothing to do ends before Dagster, Ray, torch or MLflow are imported.
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dags.cli.tables import print_nothing_to_do, print_plan, print_summary
from pipelines.config import RunConfig, load_config, save_config, saved_config
from pipelines.errors import ConfigError, StageBusy
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.graph import select, stage_named, upstream
from pipelines.pipeline import Pipeline, Planned, State
from pipelines.report import write_run_report
from pipelines.store.home import home_path, open_home


@dataclass(frozen=True)
class RunRequest:
    """What the command line asked for."""

    preset: str
    corpus: str | None = None
    snapshot: str | None = None
    select: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    home: Path | None = None
    ray: str | None = None

    def config(self) -> RunConfig:
        return load_config(
            self.preset, self.overrides, corpus=self.corpus, snapshot=self.snapshot, ray=self.ray
        )

    def forced(self) -> tuple[str, ...]:
        return select(self.force) if self.force else ()

    def settings(self, home: Path) -> dict[str, Any]:
        """The same as fields of the DAG's resource, so that the run's page shows them."""
        given = {"corpus": self.corpus, "snapshot": self.snapshot, "ray": self.ray}
        return {
            "home": str(home),
            "preset": self.preset,
            "overrides": list(self.overrides),
            "force": list(self.forced()),
            **{name: value for name, value in given.items() if value is not None},
        }


def dry_run_of(request: RunRequest) -> None:
    """Print the plan; touch nothing."""
    config, chosen, forced = request.config(), select(request.select), request.forced()
    plan = Pipeline(config, home_path(request.home), progress=Progress()).plan()
    print_plan(plan, _todo(plan, chosen, forced), forced)


def run_pipeline(request: RunRequest) -> None:
    """Run what was asked for and is not fresh. Raises what the first failing stage raised."""
    config, chosen, forced = request.config(), select(request.select), request.forced()
    home = open_home(request.home)
    pipeline = Pipeline(config, home, Engine(config.ray, config.workers), Progress())
    pipeline.prepare()
    save_config(config, home)
    plan = pipeline.plan()
    todo = _todo(plan, chosen, forced)
    _refuse_busy(plan, todo)
    _refuse_gaps(plan, todo)
    if not todo:
        print_nothing_to_do(plan, home)
        return
    started = datetime.now(UTC).isoformat(timespec="seconds")
    clock = time.perf_counter()
    try:
        _launch(home, todo, config.snapshot, request.settings(home))
    finally:
        after = Pipeline(config, home).plan()
        ran = {p.stage.name for p in after if p.fresh and p.receipt and p.receipt.finished_at >= started}
        if ran:
            write_run_report(home, config, after)
        print_summary(after, ran, home, time.perf_counter() - clock)


def write_page(home: Path) -> Path:
    """Write HOME/report.html from what is there."""
    config = saved_config(home) or load_config()
    return write_run_report(home, config, Pipeline(config, home).plan())


def _launch(home: Path, todo: Sequence[str], snapshot: str, settings: dict[str, Any]) -> None:
    warnings.filterwarnings("ignore")  # the libraries' deprecations are ours to read, not the user's
    from dags.launch import launch

    launch(home, todo, snapshot, settings)


def _todo(plan: list[Planned], chosen: Sequence[str], forced: Sequence[str]) -> list[str]:
    """The forced stages, the chosen ones that are not fresh, and the chosen ones after any of these: whether
    their inputs change is known only when it has run.
    """
    todo: list[str] = []
    for one in plan:
        name = one.stage.name
        follows = not upstream(name).isdisjoint(todo)
        if name in forced or (name in chosen and (follows or not one.fresh)):
            todo.append(name)
    return todo


def _refuse_busy(plan: list[Planned], todo: Sequence[str]) -> None:
    for one in plan:
        if one.state is State.RUNNING and one.stage.name in todo:
            raise StageBusy(
                f"{one.stage.name} {one.fingerprint} is being made by {one.why}; wait for it, or stop it and"
                " run again"
            )


def _refuse_gaps(plan: list[Planned], todo: Sequence[str]) -> None:
    """Every stage that will run finds its inputs fresh or made by this run."""
    state = {one.stage.name: one for one in plan}
    for name in todo:
        for given in stage_named(name).inputs:
            one = state.get(given)
            if one is not None and not one.fresh and given not in todo:
                raise ConfigError(
                    f"--select: {name} needs {given}, which is {one.state.value} ({one.why}); run it too:"
                    f" --select +{name}"
                )
