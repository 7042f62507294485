"""The settings of the network and of its diffusion, without torch: a command that finds everything done
never imports it.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.config_field import added_field
from components.errors import InputError, first_fault

ProcessName = Literal["rectified_flow", "ddpm", "ddpm_cosine"]
LossTarget = Literal["x_0", "velocity", "eps"]  # what a loss may compare
Quantity = Literal["x_0", "velocity", "eps", "score"]  # what a sampler may ask for
Prediction = Literal["x_0", "velocity", "eps", "preconditioned"]  # what a network's output may be
SamplerName = Literal["euler", "heun", "dpm_solver_2m", "sde", "ddpm", "ddim", "consistency"]
VarianceName = Literal["beta", "beta_tilde"]


class DiffusionConfig(BaseModel):
    """The path from data to noise, and what the network predicts on it. A model's card keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    process: ProcessName = Field(
        "rectified_flow",
        description="the path from data to noise; ddpm has the linear schedule, ddpm_cosine the cosine",
    )
    prediction: Prediction = Field(
        "x_0",
        description="what the network's output is; x_0 suits large patches, preconditioned (EDM) latents",
    )


class SamplerConfig(BaseModel):
    """How an image is sampled, besides steps and guidance scale. A model's card keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: SamplerName = Field("euler", description="which sampler")
    eta: float = Field(
        0.0, ge=0, le=1, description="of ddim: the noise it adds; 0: none, 1: as much as ddpm with beta_tilde"
    )
    variance: VarianceName = Field(
        "beta_tilde", description="of ddpm's steps; beta suits data of variance 1, beta_tilde a single point"
    )
    guidance_interval: tuple[float, float] = Field(
        (0.0, 1.0), description="the times at which guidance acts; 0: the data, 1: the noise"
    )
    guidance_rescale: float = Field(
        0.0, ge=0, le=1, description="how far the guided estimate gets the deviation of the unguided"
    )

    @model_validator(mode="after")
    def _settings_are_the_sampler_s(self) -> Self:
        low, high = self.guidance_interval
        if not 0 <= low < high <= 1:
            raise InputError(f"guidance interval {low:g} {high:g} is none; give two rising times from 0 to 1")
        if self.eta and self.name != "ddim":
            raise InputError(f"eta is of sampler ddim; {self.name} has none: take ddim, or leave it out")
        if self.variance == "beta" and self.name != "ddpm":
            raise InputError(f"variance is of sampler ddpm; {self.name} has none: take ddpm, or leave it out")
        return self

    def overridden(self, **given: Any) -> "SamplerConfig":
        """This with what is given and not None. Another sampler than this one has its own eta and variance.

        Raises InputError, one line.
        """
        given = {name: value for name, value in given.items() if value is not None}
        same = given.get("name", self.name) == self.name
        kept = self.model_dump(exclude=set() if same else {"name", "eta", "variance"})
        try:
            return SamplerConfig.model_validate(kept | given)
        except ValidationError as error:
            raise InputError(f"sampler: {first_fault(error)}") from error


DEFAULT_SAMPLER = SamplerConfig()
CONSISTENCY_SAMPLER = SamplerConfig(name="consistency")


class DiTConfig(BaseModel):
    """Sizes of the network. Lengths in pixels (of an autoencoder's latents: in latents) or features."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    image_size: int = Field(
        32, gt=0, description="side of the square image, in pixels, in whose frame images of other sizes lie"
    )
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

    def resized(self, *, width: int, depth: int, heads: int) -> "DiTConfig":
        """The same but for the size of what is between input and output. Raises InputError, one line."""
        sizes = {"width": width, "depth": depth, "heads": heads}
        try:
            return DiTConfig.model_validate(self.model_dump() | sizes)
        except ValidationError as error:
            raise InputError(first_fault(error)) from error

    @model_validator(mode="after")
    def _sizes_fit(self) -> "DiTConfig":
        if self.image_size % self.patch:
            raise InputError(f"image_size {self.image_size} is not a multiple of patch {self.patch}")
        if self.width % (2 * self.heads):
            raise InputError(f"width {self.width} does not split into {self.heads} heads of an even size")
        return self


class AutoguideConfig(BaseModel):
    """A smaller network that is trained less, for guidance to lead away from (Karras 2024b)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    scale: float = Field(1.0, gt=0, description="how far guidance leads away from it; see guidance.py")
    images: int = Field(16_000, gt=0, description="images that it sees; a tenth of the network's, or fewer")
    width: int = Field(64, gt=0, description="features of a token")
    depth: int = Field(3, gt=0, description="blocks")
    heads: int = Field(4, gt=0)


class AutoguideCard(BaseModel):
    """What a model's card keeps of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    dit: DiTConfig
    scale: float = Field(gt=0)
