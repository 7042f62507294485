"""How the DAG is operated: when it runs, how often it tries, how long it may take, what counts as silence.

Nothing here changes an output, so none of it is in a fingerprint.
"""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipelines.graph import EVERY_STAGE


class OperationsConfig(BaseModel):
    """The section `operations` of a run's config. Of the deployed one, for schedules, sensor and absence."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    data_cron: str = "0 2 * * *"  # when registered snapshots are brought to the deployed config
    models_cron: str = "0 3 * * 0"  # when the models are trained on all of them; Sundays at 03:00
    snapshot_attempts: int = Field(default=3, ge=1)  # runs of a snapshot that fails, before it is left
    snapshot_retry_seconds: float = Field(default=600.0, ge=0)  # from a failed one to the next
    stage_seconds: dict[str, float] = {}  # the most that a stage may take, by its name
    stall_seconds: float | None = Field(
        default=3600.0, gt=0
    )  # without progress, after which a stage is ended
    champion_days: float | None = Field(default=14.0, gt=0)  # without another champion, before an alert
    silent_minutes: float | None = Field(default=30.0, gt=0)  # without a look of the sensor, before an alert

    @field_validator("stage_seconds")
    @classmethod
    def _of_stages(cls, limits: dict[str, float]) -> dict[str, float]:
        names = [stage.name for stage in EVERY_STAGE]
        for name, seconds in limits.items():
            if name not in names:
                raise ValueError(f"'{name}' is no stage; there are {', '.join(names)}")
            if seconds <= 0:
                raise ValueError(f"the limit of {name} is {seconds:g} s; it must be more than 0")
        return limits
