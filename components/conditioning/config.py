"""The settings of the text encoder and of the autoencoder, without torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LEARNED = "learned"  # in place of a pretrained encoder's id or path
PIXELS = "pixels"  # in place of an autoencoder


class TextConfig(BaseModel):
    """Which text encoder, and how much of a caption it reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = Field("learned", description="learned with the DiT, or the id or path of a frozen encoder")
    revision: str | None = Field(None, description="of a pretrained model")
    vocabulary: int = Field(512, ge=300, description="tokens of a learned vocabulary")
    max_length: int = Field(48, gt=1, description="tokens of a caption that are read")


class AutoencoderConfig(BaseModel):
    """Which autoencoder makes the DiT's input of an image, and images of its output. In a model's card."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: Literal["pixels", "fit"] = Field(
        "pixels",
        description="pixels: none, the DiT works on images themselves; fit: one learned from them",
    )
    channels: int = Field(24, gt=0, description="of the latents of a fitted one")
    widths: tuple[int, ...] = Field(
        (16, 48, 96, 128),
        min_length=2,
        description="features at each resolution, each half the last one's side",
    )
    decoder_blocks: int = Field(2, gt=0, description="residual blocks of the decoder's lower resolutions")

    @property
    def downscale(self) -> int:
        """Pixels along a side for each latent."""
        return 1 if self.model == PIXELS else int(2 ** (len(self.widths) - 1))
