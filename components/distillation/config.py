"""The settings of consistency distillation and training, without torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.config_field import added_field
from components.errors import InputError

Method = Literal["cd", "ct", "mean_flow"]
Metric = Literal["pseudo_huber", "l1", "l2", "perceptual"]
PERCEPTUAL = "perceptual"
GUIDANCE = 3.0

MATCHING = "matching"
MEAN_FLOW_ONLY = ("same_times", "adaptive_power")
# What a method has no use for: set to anything but its default, it is refused.
UNUSED: dict[Method, tuple[str, ...]] = {
    "cd": MEAN_FLOW_ONLY,
    "ct": (*MEAN_FLOW_ONLY, "solver", MATCHING),
    "mean_flow": ("intervals", "curriculum", "solver", "target", "metric", MATCHING),
}


class MatchingConfig(BaseModel):
    """Distribution matching beside consistency: see matching.py."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    weight: float = Field(2.0, gt=0, description="of its slope beside that of the consistency loss")
    guidance: float = Field(GUIDANCE, ge=1, description="scale of the guided teacher that is matched")


class ConsistencyConfig(BaseModel):
    """How a student learns to go along a path in one step, and how far the teacher's guidance goes.

    cd follows the teacher's path, ct that of each image and its noise, which no teacher has to know;
    mean_flow learns the average velocity of the teacher's path. Only a teacher can be guided: ct has guidance
    1, and its student follows prompts as an unguided model does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    method: Method = added_field(
        "cd", description="cd: consistency distillation; ct: consistency training; mean_flow"
    )
    intervals: int = Field(12, ge=2, description="steps between noise and data; of a curriculum: the first")
    shift: float = Field(1.5, gt=0, description="SD3's shift of their times; above 1: finer near the noise")
    solver: Literal["euler", "heun"] = Field(
        "euler", description="of a step; heun evaluates the teacher twice"
    )
    guidance: float = Field(
        GUIDANCE, ge=1, description="scale of the teacher's guidance, absorbed; of ct, without a teacher: 1"
    )
    curriculum: Literal["fixed", "doubling", "ratio"] = added_field(
        "fixed", description="of the intervals: doubled up to most_intervals (iCT), or ECT's ratio of times"
    )
    most_intervals: int = added_field(1280, ge=2, description="of doubling: the last")
    halvings: int = added_field(8, ge=1, le=30, description="of ratio: stages, each of half the step")
    metric: Metric = added_field("pseudo_huber", description="how far two estimates are from each other")
    perceptual: str | None = added_field(
        None, description="of the perceptual metric: folder or id of a captioner, whose image features count"
    )
    target: Literal["stop_gradient", "ema"] = added_field(
        "stop_gradient", description="whose estimate is learned: the student's own, or its average's"
    )
    target_halflife_images: int = added_field(
        1_000, gt=0, description="half-life of that average, of the first number of intervals"
    )
    matching: MatchingConfig | None = added_field(
        None, description="of cd: move what is drawn in one step to where the teacher draws as often, too"
    )
    same_times: float = added_field(0.25, ge=0, lt=1, description="of mean_flow: share of times with r = t")
    adaptive_power: float = added_field(
        1.0, ge=0, le=1, description="of mean_flow: p of its weight 1 / error²ᵖ; 0: the squared error alone"
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_ct_unguided(cls, values: Any) -> Any:
        """The default guidance is that of a teacher: where there is none, it becomes 1."""
        if isinstance(values, dict) and values.get("method") == "ct":
            default = values.get("guidance", GUIDANCE) == GUIDANCE
            return {**values, "guidance": 1.0} if default else values
        return values

    @model_validator(mode="after")
    def _options_fit(self) -> "ConsistencyConfig":
        method = f"consistency.method {self.method}"
        if self.method == "ct" and self.guidance != 1:
            raise InputError(
                f"{method} has no teacher whose guidance it could absorb, and guidance is {self.guidance:g};"
                " leave it out, or set consistency.method to cd"
            )
        for name in UNUSED[self.method]:
            if getattr(self, name) != type(self).model_fields[name].default:
                advice = "set it to null" if name == MATCHING else "leave it out"  # a preset may have it
                raise InputError(f"{method} has no use for consistency.{name}; {advice}")
        if (self.metric == PERCEPTUAL) != (self.perceptual is not None):
            raise InputError(
                "consistency.metric perceptual and consistency.perceptual, the folder or id of a captioner"
                " such as HOME/annotators/FINGERPRINT/captioner, need each other; set both or neither"
            )
        if self.curriculum == "doubling" and self.most_intervals < self.intervals:
            raise InputError(
                f"consistency.most_intervals {self.most_intervals} is below intervals {self.intervals}"
            )
        return self
