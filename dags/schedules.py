"""The schedule: the whole DAG every night, with the config of the last run. Off until turned on.

A corpus that grew in place has another digest, so its stages run again; where nothing changed, nothing does.
"""

import dagster as dg

from dags.assets import snapshots
from dags.jobs import everything
from dags.resources import StraightshotRun

NIGHTLY = "0 2 * * *"  # 02:00 of the machine's clock


@dg.schedule(job=everything, cron_schedule=NIGHTLY, name="nightly")
def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    snapshot = StraightshotRun().config().snapshot
    context.instance.add_dynamic_partitions(snapshots.name or "", [snapshot])
    return dg.RunRequest(partition_key=snapshot, tags={"straightshot/started_by": "schedule"})
