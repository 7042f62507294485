"""The settings of an autoencoder's fit, without torch."""

from pydantic import Field

from components.conditioning.config import AutoencoderConfig
from components.training.config import OptimizerConfig, TrainingConfig


class AutoencoderFitConfig(AutoencoderConfig):
    """Which autoencoder, and how one is fitted where `model` is fit."""

    noise: float = Field(0.4, ge=0, description="largest standard deviation of the noise on the latents")
    perceptual: float = Field(
        0.0,
        ge=0,
        description="weight of how differently the captioner sees an image and its reconstruction",
    )
    training: TrainingConfig = TrainingConfig(
        images=20_000,
        batch_size=16,
        optimizer=OptimizerConfig(warmup_images=1_000),
        ema_halflife_images=1_000,
    )

    @property
    def card(self) -> AutoencoderConfig:
        """What a model's card keeps of it."""
        return AutoencoderConfig.model_validate(self.model_dump(include=set(AutoencoderConfig.model_fields)))
