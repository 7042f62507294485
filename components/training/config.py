"""The settings of the training loop, its optimizers and the flow loss, without torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.config_field import added_field
from components.diffusion.config import LossTarget
from components.precision import PRECISION_IS, Precision

VALIDATION_LOSS = (
    "validation_loss"  # on a curve, the mean over all times; what begins so is of one bin of them
)


class OptimizerConfig(BaseModel):
    """Learning rates and their shape over the run, all counted in images."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    learning_rate: float = Field(2e-3, gt=0, description="AdamW's peak rate")
    muon_learning_rate: float = Field(
        2e-2, ge=0, description="Muon's peak rate on hidden matrices; 0: AdamW on all"
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled, per unit of learning rate")
    beta2: float = Field(0.95, gt=0, lt=1, description="AdamW's second-moment decay per step")
    warmup_images: int = Field(2_000, ge=0, description="linear warm-up, in images")
    decay_fraction: float = Field(
        0.4, ge=0, le=1, description="share of the run that decays linearly to zero"
    )
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the whole gradient")


class TrainingConfig(BaseModel):
    """How long, how wide, how precise. Everything that is a duration is counted in images."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    images: int = Field(gt=0, description="images to see in all")
    batch_size: int = Field(32, gt=0, description="images a step, over all processes")
    optimizer: OptimizerConfig = OptimizerConfig()
    ema_halflife_images: int = Field(
        2_000, ge=0, description="half-life of the averaged weights; 0: no average"
    )
    checkpoint_images: int = Field(50_000, gt=0, description="images between two checkpoints")
    log_images: int = Field(2_000, gt=0, description="images between two points of the curves")
    precision: Precision = Field("auto", description=f"of arithmetic; weights stay float32. {PRECISION_IS}")
    cpu_threads: int = Field(
        1, ge=1, description="threads of one process on a CPU; fixed, since the last bits depend on it"
    )
    compile: bool = Field(False, description="torch.compile the model, in place")


class LoraConfig(BaseModel):
    """Thin matrices that are trained in place of the blocks' own (LoRA, Hu 2021)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    rank: int = Field(16, ge=1, description="of each product of two thin matrices")
    alpha: int = Field(16, ge=1, description="alpha / rank scales the products beside the weights")


class ReflowConfig(BaseModel):
    """How the pairs of noise and image are drawn that a flow is trained on again (reflow, Liu 2022)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    pairs: int = Field(10_000, ge=2, description="that are drawn, once, and kept until the training is done")
    steps: int | None = Field(None, ge=1, description="Euler steps of each; by default the model's own")
    guidance: float | None = Field(
        None, ge=1, description="guidance scale, which is absorbed; by default the model's own"
    )


class FlowLossConfig(BaseModel):
    """What is compared, how times are drawn and captions dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    times: Literal["logit_normal", "uniform"] | None = added_field(
        None, description="how times are drawn; by default logit_normal of flows, uniform over ddpm's steps"
    )
    time_mean: float = Field(0.3, description="of the logit-normal times; positive leans to noise")
    time_std: float = Field(1.0, gt=0)
    shift: float = Field(1.0, gt=0, description="SD3's resolution shift of the times; 1: none")
    shift_side: int | None = added_field(
        None,
        gt=0,
        description="side of the square, as network.image_size counts it, whose shift that is; images of m"
        " pixels in place of its n are shifted by sqrt(m / n) more (SD3, Eq. 23); by default all alike",
    )
    target: LossTarget | None = Field(
        None, description="what is compared; by default velocity of rectified flow, eps of ddpm"
    )
    caption_dropout: float = Field(0.1, ge=0, lt=1, description="share of captions emptied, for guidance")
