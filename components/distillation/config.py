"""The settings of consistency distillation, without torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ConsistencyConfig(BaseModel):
    """How the teacher's path is cut, and how far its guidance goes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    intervals: int = Field(12, ge=2, description="steps between noise and data")
    shift: float = Field(1.5, gt=0, description="SD3's shift of their times; above 1: finer near the noise")
    solver: Literal["euler", "heun"] = Field(
        "euler", description="of a step; heun evaluates the teacher twice"
    )
    guidance: float = Field(3.0, ge=1, description="scale of the teacher's guidance, absorbed")
