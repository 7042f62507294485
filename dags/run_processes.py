"""Which process a run lives in, and the end of runs whose process is gone.

Dagster's history is written by the process that runs: of one that was killed it says STARTED for ever, and a
STARTED run holds a slot of the queue. So every run records its process as tags, and whoever comes by closes
the runs of dead ones: the command as it starts, the daemon (of `straightshot ui` too) every few seconds.
A process of another host is left to that host.
"""

import time
from typing import Any

import dagster as dg

from pipelines.alerts import alert
from pipelines.store.home import home_path
from pipelines.store.locks import Owner

HOST, PID, BORN = "straightshot/host", "straightshot/pid", "straightshot/born"
ALERTED = "straightshot/alerted"
IN_PROGRESS = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
RECORDING_SECONDS = 180.0  # a run that started longer ago and has recorded no process never will


def process_tags(run_id: str) -> dict[str, str]:
    """This process as tags of a run."""
    owner = Owner.me(run_id)
    return {HOST: owner.host, PID: str(owner.pid), BORN: f"{owner.born:.3f}"}


def record_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Note in the history that the run lives in this process."""
    instance.add_run_tags(run_id, process_tags(run_id))


def death_of(record: dg.RunRecord) -> str | None:
    """Why a run in progress is known to be dead; None while it may live."""
    run = record.dagster_run
    try:
        owner = Owner(int(run.tags[PID]), run.tags[HOST], float(run.tags[BORN]), run.run_id)
    except (KeyError, ValueError):
        started = record.start_time
        if started is not None and time.time() - started > RECORDING_SECONDS:
            return "its process was killed before it recorded itself"
        return None
    if owner.alive(time.time()):
        return None
    return f"its {owner} is gone: it was killed; `straightshot retry {run.run_id}` goes on from there"


def settings_of(run: dg.DagsterRun) -> dict[str, Any]:
    """The settings that a run was started with: fields of StraightshotRun."""
    config: Any = run.run_config
    return dict(config.get("resources", {}).get("straightshot", {}).get("config", {}))


def alert_of_failure(instance: dg.DagsterInstance, run: dg.DagsterRun, why: str) -> None:
    """Send an alert about a run that could not do so itself."""
    alert(home_path(settings_of(run).get("home")), "run_failed", f"run {run.run_id}: {why}")
    mark_alerted(instance, run.run_id)


def mark_alerted(instance: dg.DagsterInstance, run_id: str) -> None:
    """Note that an alert about the run's failure was sent."""
    instance.add_run_tags(run_id, {ALERTED: "true"})


def close_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark the runs whose process is gone as failed; returns their ids."""
    closed: list[str] = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS)):
        if (death := death_of(record)) is not None:
            run = record.dagster_run
            instance.report_run_failed(run, death)
            alert_of_failure(instance, run, death)
            closed.append(run.run_id)
    return closed
