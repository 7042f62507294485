"""What should be heard of although nothing happens: a silent sensor, no new champion, an alert that waits.

The daemon looks every minute. Of a daemon that is down itself, `straightshot watch` tells, from a cron job of
another machine perhaps.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus  # public nowhere

from components.errors import one_line
from dags.run_processes import ALERTED, alert_of_failure
from pipelines.absence import absent_champion, alert_once_a_day, notice_champion
from pipelines.alerts import deliver
from pipelines.deployment import Deployment, find_deployment
from pipelines.errors import ConfigError
from pipelines.registry.model_registry import REGISTERED_NAME
from pipelines.store.home import home_path

SENSOR = "new_snapshots"
INTERVAL_SECONDS = 60
FAILURE_SECONDS = 86400.0  # how far back failed runs are looked at


@dg.sensor(
    name="watch",
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    target=None,
)
def watch(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Alert on absence, and send again what the webhook did not take. It starts no run."""
    return dg.SkipReason("; ".join(look(home_path(None), context.instance, time.time())) or "all is well")


def look(home: Path, instance: dg.DagsterInstance, now: float) -> list[str]:
    """One line for everything that is amiss; each is an alert, too, at most once a day."""
    lines = []
    try:
        deployed = find_deployment(home)
    except ConfigError as error:
        deployed, lines = None, [str(error)]
    named = deployed.config.promote.registered_name if deployed else REGISTERED_NAME
    notice_champion(home, named, now)
    lines += _failures_unheard_of(instance, now)
    if deployed is not None:
        absences = {
            "no_new_champion": absent_champion(home, deployed, now),
            "sensor_silent": silent_sensor(instance, deployed, now),
        }
        for event, line in absences.items():
            if line is not None:
                lines.append(line)
                alert_once_a_day(home, event, line, now)
    if waiting := deliver(home):
        lines.append(f"alerts that wait for the webhook: {waiting}")
    return lines


def _failures_unheard_of(instance: dg.DagsterInstance, now: float) -> Iterator[str]:
    """Alert on runs that failed lately and could not say so: killed ones, and those that never started."""
    since = datetime.fromtimestamp(now - FAILURE_SECONDS, UTC)
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)):
        if ALERTED not in run.tags:
            events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
            why = one_line(events[-1].message) if events else "it failed"
            alert_of_failure(instance, run, why)
            yield f"run {run.run_id}: {why}"


def silent_sensor(instance: dg.DagsterInstance, deployed: Deployment, now: float) -> str | None:
    """A line when no look of the sensor succeeded for operations.silent_minutes since the deployment."""
    minutes = deployed.config.operations.silent_minutes
    if minutes is None or now - deployed.time < minutes * 60:
        return None
    for state in instance.all_instigator_state():
        if state.name == SENSOR and instance.get_ticks(
            state.instigator_origin_id,
            state.selector_id,
            after=now - minutes * 60,
            limit=1,
            statuses=[TickStatus.SKIPPED, TickStatus.SUCCESS],
        ):
            return None
    return (
        f"the sensor {SENSOR} has not looked for {minutes:g} minutes: is Dagster's daemon up, is the sensor"
        " on, do its ticks fail?"
    )
