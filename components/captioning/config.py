"""The settings of a captioner that is fitted here, without torch."""

from pydantic import BaseModel, ConfigDict, Field

from components.training.config import OptimizerConfig, TrainingConfig

FIT, NONE = "fit", "none"  # in place of a pretrained model's id or path


class SamplingConfig(BaseModel):
    """How a captioner draws the next token."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    min_p: float = Field(
        0.5, gt=0, le=1, description="least probability of a token, as a part of the likeliest's; 1: greedy"
    )
    seed: int = Field(0, ge=0, description="of the draws, with the record's key and the caption's kind")

    @property
    def greedy(self) -> bool:
        return self.min_p == 1


GREEDY = SamplingConfig(min_p=1.0)


class CaptionerFitConfig(BaseModel):
    """Sizes of the captioner and how it is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    image_size: int = Field(
        64, gt=0, multiple_of=16, description="side that images are resized to, in pixels"
    )
    channels: tuple[int, int, int, int] = Field(
        (32, 64, 128, 128), description="of the vision tower's stages, at strides 4, 8, 16 and 16"
    )
    blocks: int = Field(1, gt=0, description="residual blocks of a stage of the vision tower")
    width: int = Field(128, gt=0, description="features of a token of the language model")
    text_depth: int = Field(3, gt=0, description="layers of the language model")
    heads: int = Field(4, gt=0)
    vocabulary: int = Field(512, ge=300, description="tokens")
    tower_fraction: float = Field(
        0.6,
        ge=0,
        lt=1,
        description="of the training's images, the share that the vision tower learns alone from",
    )
    training: TrainingConfig = TrainingConfig(
        images=50_000,
        batch_size=32,
        optimizer=OptimizerConfig(learning_rate=2e-3, muon_learning_rate=2e-2, warmup_images=1_500),
        ema_halflife_images=1_000,
    )
