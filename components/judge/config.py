"""The settings of a judge that is fitted here, without torch."""

from pydantic import BaseModel, ConfigDict, Field

from components.training.config import OptimizerConfig, TrainingConfig


class JudgeFitConfig(BaseModel):
    """Sizes of the judge and how it is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    image_size: int = Field(
        64, gt=0, multiple_of=32, description="side that images are resized to, in pixels"
    )
    vision_width: int = Field(16, gt=0, description="channels of the vision tower's stem")
    vision_blocks: int = Field(1, gt=0, description="residual blocks of a stage of the vision tower")
    width: int = Field(128, gt=0, description="features of a token of the text tower")
    embedding: int = Field(64, gt=0, description="features that images and texts share")
    text_depth: int = Field(2, gt=0, description="layers of the text tower")
    vocabulary: int = Field(512, ge=300, description="tokens")
    context: int = Field(48, gt=2, description="tokens of a text that are read")
    excerpts: float = Field(0.4, ge=0, le=1, description="share of captions that are shortened to an excerpt")
    training: TrainingConfig = TrainingConfig(
        images=24_000,
        batch_size=64,
        optimizer=OptimizerConfig(learning_rate=1e-3, muon_learning_rate=1e-2, warmup_images=1_500),
        ema_halflife_images=1_000,
    )
