"""Everything that Dagster loads: assets, jobs, schedules, sensor and resource."""

import dagster as dg

from dags.assets import all_assets
from dags.jobs import JOBS
from dags.resources import StraightshotRun
from dags.schedules import all_schedules
from dags.sensors import new_snapshots
from dags.watch import watch

defs = dg.Definitions(
    assets=all_assets(),
    jobs=JOBS,
    schedules=all_schedules(),
    sensors=[new_snapshots, watch],
    resources={"straightshot": StraightshotRun()},
    executor=dg.in_process_executor,
)
