"""How a deployed DAG is operated: when it runs, how often it tries, and what counts as silence.

Nothing here changes an output, so none of it is in a fingerprint.
"""

from pydantic import BaseModel, ConfigDict, Field


class OperationsConfig(BaseModel):
    """The section `operations` of a run's config; schedules and sensor read it from the deployed one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    data_cron: str = "0 2 * * *"  # when registered snapshots are brought to the deployed config
    models_cron: str = "0 3 * * 0"  # when the models are trained on all of them; Sundays at 03:00
    snapshot_attempts: int = Field(default=3, ge=1)  # runs of a snapshot that fails, before it is left
    snapshot_retry_seconds: float = Field(default=600.0, ge=0)  # from a failed one to the next
