"""The schedules: the deployed config's data half every night, its model half every week.

Both run what `straightshot deploy` was given, and nothing before that. Their times are the deployed config's
(`operations.data_cron`, `models_cron`; UTC), read when Dagster loads its code: after a change of them, reload
it. Where nothing changed, a run finds everything fresh and ends.
"""

import time
from collections.abc import Iterator, Sequence

import dagster as dg
from dagster._utils.schedules import is_valid_cron_schedule  # public nowhere

from dags.assets import snapshots
from dags.attempts import Attempts, run_config
from dags.jobs import data, models
from pipelines.config import config_of_snapshot
from pipelines.deployment import deployment, find_deployment
from pipelines.errors import ConfigError
from pipelines.operations import OperationsConfig
from pipelines.pipeline import Pipeline
from pipelines.snapshots import all_registered
from pipelines.store.home import home_path

TAGS = {"straightshot/started_by": "schedule"}


def all_schedules() -> Sequence[dg.ScheduleDefinition]:
    """Both, at the deployed times. Until something is deployed they skip every tick and say so."""
    operations = _operations()
    running = dg.DefaultScheduleStatus.RUNNING

    @dg.schedule(job=data, cron_schedule=operations.data_cron, name="deployed_data", default_status=running)
    def deployed_data(context: dg.ScheduleEvaluationContext) -> dg.SkipReason | list[dg.RunRequest]:
        """Bring every registered snapshot that has no shards of the deployed config to it."""
        try:
            requests = list(_data_requests(context))
        except ConfigError as error:
            return dg.SkipReason(str(error))
        names = [request.partition_key or "" for request in requests]
        context.instance.add_dynamic_partitions(snapshots.name or "", names)
        return requests or dg.SkipReason("nothing to make of any registered snapshot")

    @dg.schedule(
        job=models, cron_schedule=operations.models_cron, name="deployed_models", default_status=running
    )
    def deployed_models(context: dg.ScheduleEvaluationContext) -> dg.SkipReason | dg.RunRequest:
        """Train on all registered snapshots together, evaluate, promote."""
        try:
            deployment(home_path(None))
        except ConfigError as error:
            return dg.SkipReason(str(error))
        if not any(all_registered(home_path(None))):
            return dg.SkipReason("no snapshot is registered yet")
        return dg.RunRequest(run_config=run_config(), tags=TAGS)

    return deployed_data, deployed_models


def refuse_bad_crons(operations: OperationsConfig) -> None:
    """Raise ConfigError for a time that Dagster could not load."""
    for name in ("data_cron", "models_cron"):
        if not is_valid_cron_schedule(cron := getattr(operations, name)):
            raise ConfigError(
                f"operations.{name}: '{cron}' is no cron schedule; five fields, such as '0 3 * * 0'"
            )


def _data_requests(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
    """A run for every registered snapshot that the deployed config has no shards of. Raises ConfigError."""
    home = home_path(None)
    deployed = deployment(home)
    finished, _ = Pipeline(deployed.config, home).inputs.finished_snapshots()
    for snapshot in all_registered(home):
        if snapshot.name in finished:
            continue
        try:
            config_of_snapshot(deployed.config, home, snapshot.name)
        except ConfigError as error:
            context.log.warning(str(error))
            continue
        attempts = Attempts.of(context.instance, snapshot.name, snapshot.digest, deployed)
        if attempts.due(time.time()):
            yield attempts.request(TAGS)


def _operations() -> OperationsConfig:
    """The deployed settings; the defaults where there are none that can be read, which a tick then says."""
    try:
        deployed = find_deployment(home_path(None))
    except ConfigError:
        deployed = None
    return deployed.config.operations if deployed else OperationsConfig()
