"""Runs stages through Dagster in this process, with the history under HOME."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError  # public nowhere

from components.errors import one_line
from dags.assets import snapshots
from dags.definitions import defs
from dags.failures import Failure
from dags.instance import FOLDER, open_instance
from dags.jobs import everything
from dags.run_processes import close_dead_runs, settings_of
from pipelines.errors import ConfigError, StageFailed
from pipelines.graph import SOURCES, stage_named
from pipelines.store.home import HOME_VARIABLE

QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}  # the command shows its own progress
PARTITION, PARENT, ROOT = "dagster/partition", "dagster/parent_run_id", "dagster/root_run_id"
STARTED_BY = "straightshot/started_by"


@dataclass(frozen=True)
class Retried:
    """A run that was done again. of: the failed one's id; stages: how many it had."""

    of: str
    run_id: str
    stages: int


def launch(home: Path, stages: Sequence[str], snapshot: str, settings: dict[str, Any]) -> None:
    """Materialise the stages in order; raises what the first failing stage raised.

    settings: the fields of StraightshotRun, kept with the run in the history.
    """
    needed = {name for stage in stages for name in stage_named(stage).inputs}
    keys = [name for name in SOURCES if name in needed] + list(stages)
    with _opened(home) as instance:
        instance.add_dynamic_partitions(snapshots.name or "", [snapshot])
        _execute(
            instance,
            everything.name,
            [dg.AssetKey(name) for name in keys],
            partition=snapshot,
            run_config={"resources": {"straightshot": {"config": settings}}},
            tags={STARTED_BY: "command"},
        )


def retry(home: Path, run_id: str | None = None) -> Retried:
    """Run a failed run again with its recorded settings; without an id, the last one that failed.

    A stage that it had forced and finished is not forced again. Raises ConfigError when there is no such run,
    and what the first failing stage raised.
    """
    with _opened(home) as instance:
        run = _failed_run(instance, run_id)
        os.environ[HOME_VARIABLE] = str(home)  # of a run that names none
        result = _execute(
            instance,
            run.job_name,
            sorted(run.asset_selection) if run.asset_selection else None,
            partition=run.tags.get(PARTITION),
            run_config=_unforced(instance, run),
            tags={STARTED_BY: "retry", PARENT: run.run_id, ROOT: run.root_run_id or run.run_id},
        )
        return Retried(run.run_id, result.run_id, len(result.get_asset_materialization_events()))


@contextmanager
def _opened(home: Path) -> Iterator[dg.DagsterInstance]:
    """HOME's instance, without runs of dead processes."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    os.environ["DAGSTER_HOME"] = str(home / FOLDER)
    with open_instance(home) as instance:
        close_dead_runs(instance)
        yield instance


def _execute(
    instance: dg.DagsterInstance,
    job: str,
    keys: Sequence[dg.AssetKey] | None,
    *,
    partition: str | None,
    run_config: Mapping[str, Any],
    tags: Mapping[str, str],
) -> dg.ExecuteInProcessResult:
    """Run in this process; raises what the first failing stage raised."""
    try:
        return defs.resolve_job_def(job).execute_in_process(
            instance=instance,
            asset_selection=keys,
            partition_key=partition,
            run_config={**run_config, "loggers": QUIET},
            tags=tags,
        )
    except Failure as failure:
        raise failure.error from failure.error.__cause__
    except dg.DagsterError as error:
        raise StageFailed(one_line(error)) from error
    except DagsterExecutionInterruptedError as error:  # Ctrl-C between two stages
        raise KeyboardInterrupt from error


def _failed_run(instance: dg.DagsterInstance, run_id: str | None) -> dg.DagsterRun:
    """The failed run whose id starts so, or the last one. Raises ConfigError when there is none."""
    ended = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    failed = instance.get_runs(dg.RunsFilter(statuses=ended))  # newest first
    found = [run for run in failed if run.run_id.startswith(run_id or "")]
    if not found:
        known = ", ".join(run.run_id[:8] for run in failed[:5]) or "none failed"
        raise ConfigError(f"no failed run {run_id or ''} in Dagster's history; the last ones: {known}")
    if run_id and len(found) > 1:
        raise ConfigError(f"{len(found)} failed runs have ids that start with {run_id}; give more of it")
    return found[0]


def _unforced(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, Any]:
    """The run's config, without forcing again what it had forced and finished."""
    settings = settings_of(run)
    made = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events = [log.dagster_event for log in made if log.dagster_event is not None]
    finished = {event.asset_key.to_user_string() for event in events if event.asset_key is not None}
    if forced := settings.get("force"):
        settings["force"] = [name for name in forced if name not in finished]
    return {"resources": {"straightshot": {"config": settings}}}
