"""`straightshot run`: plan, run what is not fresh through Dagster, and print the result.

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
from pipelines.config import RunConfig, load_config, ray_of, save_config, saved_config
from pipelines.errors import ConfigError, StageBusy
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.graph import FETCH, select, stage_named, upstream
from pipelines.pipeline import Pipeline
from pipelines.planning.planned import Planned, State
from pipelines.report import write_run_report
from pipelines.stages.fetch import is_urls
from pipelines.store.home import free_bytes, home_folder, home_path, open_home


@dataclass(frozen=True)
class RunRequest:
    """The options of one `straightshot run`."""

    preset: str
    corpus: str | None = None
    snapshot: str | None = None
    select: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    home: Path | None = None
    ray: str | None = None

    def config(self) -> RunConfig:
        """The preset with what the options change. Raises ConfigError."""
        return load_config(
            self.preset,
            self.overrides,
            home=home_folder(self.home),
            corpus=self.corpus,
            snapshot=self.snapshot,
            ray=self.ray,
        )

    def forced(self) -> tuple[str, ...]:
        """The stages to run again although they are fresh."""
        return select(self.force) if self.force else ()

    def settings(self, home: Path) -> dict[str, Any]:
        """The same as fields of the DAG's resource, so that the run's page shows them."""
        optional = {"corpus": self.corpus, "snapshot": self.snapshot, "ray": self.ray}
        return {
            "home": str(home),
            "preset": self.preset,
            "overrides": list(self.overrides),
            "force": list(self.forced()),
            **{name: value for name, value in optional.items() if value is not None},
        }


def dry_run_of(request: RunRequest) -> None:
    """Print the plan and what it will take; touch nothing."""
    from dags.cli.forecast import print_forecast
    from pipelines.forecasting.run import forecast_run

    config, chosen, forced = request.config(), select(request.select), request.forced()
    _refuse_fetch(config, (*request.select, *request.force))
    home = home_path(request.home)
    pipeline = Pipeline(config, home, progress=Progress())
    pipeline.inputs.refuse_other_corpus()
    plan = pipeline.plan()
    todo = _todo(plan, chosen, forced)
    print_plan(plan, todo, forced)
    print_forecast(forecast_run(plan, todo, config, home), free_bytes(home))


def run_pipeline(request: RunRequest) -> None:
    """Run the selected stages that are not fresh. Raises what the first failing stage raised."""
    config, chosen, forced = request.config(), select(request.select), request.forced()
    _refuse_fetch(config, (*request.select, *request.force))
    home = open_home(request.home)
    address = ray_of(config, request.overrides, request.ray)
    engine = Engine(address, config.workers, insecure=config.insecure)
    pipeline = Pipeline(config, home, engine, Progress())
    pipeline.prepare()
    plan = pipeline.plan()
    todo = _todo(plan, chosen, forced)
    _refuse_busy(plan, todo)
    _refuse_gaps(plan, todo)
    if any("shard" in stage_named(name).inputs for name in todo):
        pipeline.inputs.refuse_missing_snapshots()
    save_config(config, home)
    if "filter" in chosen:
        pipeline.register()
    if not todo:
        print_nothing_to_do(plan, home)
        return
    started = datetime.now(UTC).isoformat(timespec="seconds")
    clock = time.perf_counter()
    try:
        _launch(home, todo, config.snapshot, request.settings(home))
    finally:
        after = Pipeline(config, home).plan()
        ran = {
            planned.stage.name
            for planned in after
            if planned.fresh and planned.receipt and planned.receipt.finished_at >= started
        }
        if ran:
            write_run_report(home, config, after)
        print_summary(after, ran, home, time.perf_counter() - clock)


def write_page(home: Path) -> Path:
    """Write HOME/report.html from the outputs that there are."""
    config = saved_config(home) or load_config()
    return write_run_report(home, config, Pipeline(config, home).plan())


def _launch(home: Path, todo: Sequence[str], snapshot: str, settings: dict[str, Any]) -> None:
    warnings.filterwarnings("ignore")  # the libraries' deprecations are no news to a user
    from dags.launch import launch

    launch(home, todo, snapshot, settings)


def _todo(plan: list[Planned], chosen: Sequence[str], forced: Sequence[str]) -> list[str]:
    """The forced stages, the chosen ones that are not fresh, and the chosen ones after any of these: whether
    their inputs change is known only when it has run.
    """
    todo: list[str] = []
    for planned in plan:
        name = planned.stage.name
        follows = not upstream(name).isdisjoint(todo)
        if name in forced or (name in chosen and (follows or not planned.fresh)):
            todo.append(name)
    return todo


def _refuse_fetch(config: RunConfig, named: Sequence[str]) -> None:
    """A stage that this corpus does not have is not to be asked for by its name."""
    if FETCH.name in named and not is_urls(config.corpus):
        raise ConfigError(
            f"fetch: the corpus is {config.corpus}, which is not fetched; give a list of URLs with --corpus"
            " urls:PATH"
        )


def _refuse_busy(plan: list[Planned], todo: Sequence[str]) -> None:
    for planned in plan:
        if planned.state is State.RUNNING and planned.stage.name in todo:
            raise StageBusy(
                f"{planned.stage.name} {planned.fingerprint} is being made by {planned.why}; wait for it, or"
                " stop it and run again"
            )


def _refuse_gaps(plan: list[Planned], todo: Sequence[str]) -> None:
    """Every stage that will run finds its inputs fresh or made by this run."""
    by_name = {planned.stage.name: planned for planned in plan}
    for name in todo:
        for needed in stage_named(name).inputs:
            planned = by_name.get(needed)
            if planned is not None and not planned.fresh and needed not in todo:
                raise ConfigError(
                    f"--select: {name} needs {needed}, which is {planned.state.value} ({planned.why}); run it"
                    f" too: --select +{name}"
                )
