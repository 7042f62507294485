"""The settings of the text encoder and of the autoencoder, without torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LEARNED = "learned"  # in place of a pretrained encoder's id or path


class TextConfig(BaseModel):
    """Which text encoder, and how much of a caption it reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = Field("learned", description="learned with the DiT, or the id or path of a frozen encoder")
    revision: str | None = Field(None, description="of a pretrained model")
    vocabulary: int = Field(512, ge=300, description="tokens of a learned vocabulary")
    max_length: int = Field(48, gt=1, description="tokens of a caption that are read")


class AutoencoderConfig(BaseModel):
    """Which autoencoder makes the DiT's input of an image, and images of its output."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: Literal["pixels"] = Field("pixels", description="pixels: none, the DiT works on the image itself")
