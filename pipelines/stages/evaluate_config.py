"""The settings of evaluate, without torch."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipelines.stage import StageConfig
from pipelines.stages.model_runtime import JUDGE_RUNTIME, PLACEMENT, Device, ModelRuntime


class EvaluateConfig(StageConfig):
    """What is measured, and with what."""

    NOT_IN_FINGERPRINT: ClassVar[Mapping[str, Any]] = {"judge": PLACEMENT}

    seed: int = Field(0, ge=0, description="of the prompts and of the noise")
    domain: Literal["toy", "open"] = Field(
        "toy", description="toy: GenEval's categories, scored from the pixels; open: held-out captions"
    )
    prompts_per_category: int = Field(50, ge=1, description="prompts of each category (toy)")
    prompts: int = Field(300, ge=2, description="held-out captions to generate (open)")
    reference_images: int = Field(2000, ge=2, description="held-out images of the Fréchet distance, at most")
    teacher_steps: tuple[int, ...] = Field((50,), min_length=1, description="numbers of guided steps")
    student_steps: tuple[int, ...] = Field((1, 2, 4), min_length=1, description="numbers of steps")
    guidance: float | None = Field(None, gt=0, description="the teacher's scale; null: the model's own")
    upsample: bool = Field(True, description="upsample the prompts first, as `generate` does")
    batch_size: int = Field(64, ge=1, description="images generated at once")
    device: Device = Field("auto", description="of the models; 'auto' takes a GPU where there is one")
    judge: ModelRuntime = JUDGE_RUNTIME
    shown: int = Field(12, ge=1, description="prompts whose images are kept, for the grid and the report")
