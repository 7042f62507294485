"""How often one state of a snapshot was tried under the deployed config, counted in Dagster's history."""

from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from pipelines.deployment import Deployment

TAG = "straightshot/attempt"  # of every run of the same attempt: snapshot, its state, the deployed config
DIGITS = 12  # of a digest in a tag


def run_config(**settings: Any) -> dict[str, Any]:
    """A run's config in Dagster: the deployed config, with these settings of the resource besides."""
    return {"resources": {"straightshot": {"config": {"deployed": True, **settings}}}}


@dataclass(frozen=True)
class Attempts:
    """The runs of one state of a snapshot under one deployed config.

    most: attempts before it is left alone; wait: seconds from a failed one to the next. settings: of the
    resource, besides the deployed config.
    """

    snapshot: str
    key: str
    most: int
    wait: float
    failures: int
    last_end: float  # of the last failed run, seconds since the epoch
    unfinished: bool  # one is queued or runs
    settings: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(
        instance: dg.DagsterInstance, snapshot: str, state: str, deployed: Deployment, **settings: Any
    ) -> "Attempts":
        """Those of a snapshot in this state (a digest of its corpus or of its files' listing)."""
        key = f"{snapshot}@{state[:DIGITS]}@{deployed.digest[:DIGITS]}"
        records = instance.get_run_records(dg.RunsFilter(tags={TAG: key}))
        failed = [r for r in records if r.dagster_run.status is dg.DagsterRunStatus.FAILURE]
        return Attempts(
            snapshot,
            key,
            most=deployed.config.operations.snapshot_attempts,
            wait=deployed.config.operations.snapshot_retry_seconds,
            failures=len(failed),
            last_end=max((record.end_time or 0.0 for record in failed), default=0.0),
            unfinished=any(not record.dagster_run.is_finished for record in records),
            settings=settings,
        )

    @property
    def given_up(self) -> bool:
        """Whether it failed as often as it may: it is left until the snapshot or the config changes."""
        return self.failures >= self.most and not self.unfinished

    def due(self, now: float) -> bool:
        """Whether it may be tried now."""
        waited = not self.failures or now >= self.last_end + self.wait
        return not self.unfinished and not self.given_up and waited

    def request(self, tags: dict[str, str]) -> dg.RunRequest:
        """The next attempt."""
        return dg.RunRequest(
            run_key=f"{self.key}#{self.failures + 1}",
            partition_key=self.snapshot,
            run_config=run_config(**self.settings),
            tags={**tags, TAG: self.key},
        )
