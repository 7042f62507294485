"""The settings of consistency distillation, without torch."""

from pydantic import BaseModel, ConfigDict, Field


class ConsistencyConfig(BaseModel):
    """How the teacher's path is cut, and how far its guidance goes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    intervals: int = Field(16, ge=2, description="even steps between noise and data")
    guidance: float = Field(3.0, ge=1, description="scale of the teacher's guidance, absorbed")
