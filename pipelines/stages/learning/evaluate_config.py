"""The settings of evaluate, without torch."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from components.precision import PRECISION_IS, Precision
from pipelines.stage import StageConfig
from pipelines.stages.model_runtime import JUDGE_RUNTIME, PLACEMENT, Device, ModelRuntime


class EvaluateConfig(StageConfig):
    """What is measured, and with what."""

    NOT_IN_FINGERPRINT: ClassVar[Mapping[str, Any]] = {"judge": PLACEMENT}

    seed: int = Field(0, ge=0, description="of the prompts and of the noise")
    domain: Literal["toy", "open"] = Field(
        "toy", description="toy: held-out prompts, scored from the pixels; open: held-out captions"
    )
    prompts_per_form: int = Field(96, ge=1, description="prompts of each of the five forms (toy)")
    coverage_prompts: int = Field(20, ge=1, description="short prompts whose coverage is measured (toy)")
    coverage_seeds: int = Field(64, ge=1, description="images of each of them")
    coverage_scenes: int = Field(500, ge=1, description="scenes of each that say how the corpus has it")
    prompts: int = Field(300, ge=2, description="held-out captions to generate as prompts (open)")
    reference_images: int = Field(
        1000, ge=2, description="held-out images, at most, of whose captions images are generated (Fréchet)"
    )
    training_images: int = Field(5000, ge=1, description="images, at most, among which the nearest is found")
    teacher_steps: tuple[int, ...] | None = Field(
        None, min_length=1, description="numbers of guided steps; null: the model's own"
    )
    undistilled_steps: tuple[int, ...] = Field(
        (1, 2, 4, 8), description="numbers of unguided steps of the teacher's network"
    )
    student_steps: tuple[int, ...] = Field((1, 2, 4), min_length=1, description="numbers of steps")
    guidance: float | None = Field(None, gt=0, description="the teacher's scale; null: the model's own")
    batch_size: int = Field(64, ge=1, description="images generated at once")
    precision: Precision = Field("auto", description=f"of sampling. {PRECISION_IS}")
    device: Device = Field("auto", description="of the models; 'auto' takes a GPU where there is one")
    judge: ModelRuntime = JUDGE_RUNTIME
    shown: int = Field(12, ge=1, description="prompts whose images are kept, for the grid and the report")

    @model_validator(mode="after")
    def _floor_of_coverage(self) -> "EvaluateConfig":
        if self.coverage_scenes <= self.coverage_seeds:
            raise ValueError(
                f"coverage_scenes is {self.coverage_scenes}; it must be more than coverage_seeds, which is"
                f" {self.coverage_seeds}"
            )
        return self
