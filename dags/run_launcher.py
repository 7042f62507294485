"""Dagster's launcher, which can tell a dead run: its daemon's run monitoring asks it every few seconds.

Named in dagster.yaml; without it the daemon never looks at runs that have started.
"""

from dagster import DagsterRun, DefaultRunLauncher, RunsFilter
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus  # public nowhere

from dags.run_processes import death_of


class MonitoredRunLauncher(DefaultRunLauncher):
    """Starts runs as Dagster does, and looks whether the process of each run still lives."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        for record in self._instance.get_run_records(RunsFilter(run_ids=[run.run_id])):
            if (death := death_of(record)) is not None:
                return CheckRunHealthResult(WorkerStatus.FAILED, death)
        return CheckRunHealthResult(WorkerStatus.RUNNING)
