"""The settings of the network and of its diffusion, without torch: a command that finds everything done
never imports it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.config_field import added_field
from components.errors import InputError

ProcessName = Literal["rectified_flow", "ddpm"]
Quantity = Literal["x_0", "velocity", "eps"]  # what a loss may compare and a sampler asks for
Prediction = Literal["x_0", "velocity", "eps", "preconditioned"]  # what a network's output may be


class DiffusionConfig(BaseModel):
    """The path from data to noise, and what the network predicts on it. A model's card keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    process: ProcessName = Field("rectified_flow", description="the path from data to noise")
    prediction: Prediction = Field(
        "x_0",
        description="what the network's output is; x_0 suits large patches, preconditioned (EDM) latents",
    )


class DiTConfig(BaseModel):
    """Sizes of the network. Lengths in pixels (of an autoencoder's latents: in latents) or features."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    image_size: int = Field(32, gt=0, description="side of the square image, in pixels")
    channels: int = Field(3, gt=0)
    patch: int = Field(8, gt=0, description="side of a patch, in pixels")
    width: int = Field(128, gt=0, description="features of a token")
    depth: int = Field(5, gt=0, description="blocks")
    heads: int = Field(4, gt=0)
    mlp_ratio: float = Field(4.0, gt=0)
    text_length: int = Field(48, gt=0, description="most tokens of a text")
    vocabulary: int = Field(0, ge=0, description="token ids to embed; 0: the text arrives as features")
    text_features: int = Field(
        0, ge=0, description="width of frozen text features; 0: the text arrives as ids"
    )
    second_time: bool = added_field(
        False, description="embed a second time r: the output means the path from t to r (MeanFlow)"
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> "DiTConfig":
        if self.image_size % self.patch:
            raise InputError(f"image_size {self.image_size} is not a multiple of patch {self.patch}")
        if self.width % (2 * self.heads):
            raise InputError(f"width {self.width} does not split into {self.heads} heads of an even size")
        return self
