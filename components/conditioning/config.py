"""The settings of the text encoder and of the autoencoder, without torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from components.config_field import added_field
from components.errors import InputError

LEARNED = "learned"  # in place of a pretrained encoder's id or path
PIXELS, FITTED = "pixels", "fit"  # in place of a pretrained autoencoder's id or path
LAST_LAYER = -1

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class TextConfig(BaseModel):
    """Which text encoder, and how much of a caption it reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = Field(
        "learned",
        description="learned with the DiT, or a frozen encoder: id or path of one of transformers (T5, CLIP,"
        " a language model), hf-hub:ID or local-dir:PATH of one of open_clip, sd3:PATH of an SD3 pipeline's",
    )
    revision: str | None = Field(
        None, description="of a pretrained model; of open_clip's: hf-hub:ID@REVISION"
    )
    vocabulary: int = Field(512, ge=300, description="tokens of a learned vocabulary")
    max_length: int = Field(48, gt=1, description="tokens of a caption that are read")
    dtype: Dtype = added_field(
        "auto",
        description="of a pretrained model's weights and arithmetic; auto: as they were saved",
    )
    layer: int = added_field(
        LAST_LAYER,
        lt=0,
        description="hidden state of a transformers model, from the end; -1: what it gives out",
    )


class AutoencoderConfig(BaseModel):
    """Which autoencoder makes the DiT's input of an image, and images of its output. In a model's card."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = Field(
        "pixels",
        description="pixels: none, the DiT works on images themselves; fit: one learned from them; or the id"
        " or path of one of diffusers (AutoencoderKL, AutoencoderDC, ...)",
    )
    revision: str | None = added_field(None, description="of a pretrained one")
    dtype: Literal["float32", "bfloat16", "float16"] = added_field(
        "float32", description="of a pretrained one's weights and arithmetic"
    )
    channels: int = Field(24, gt=0, description="of the latents of a fitted one")
    widths: tuple[int, ...] = Field(
        (16, 48, 96, 128),
        min_length=2,
        description="features at each resolution, each half the last one's side",
    )
    decoder_blocks: int = Field(2, gt=0, description="residual blocks of the decoder's lower resolutions")

    @property
    def pretrained(self) -> bool:
        """Whether it is neither pixels nor one that is fitted."""
        return self.model not in (PIXELS, FITTED)

    @property
    def downscale(self) -> int:
        """Pixels along a side for each latent, of pixels or of a fitted one."""
        assert not self.pretrained, "a pretrained autoencoder says so itself, once it is loaded"
        return 1 if self.model == PIXELS else int(2 ** (len(self.widths) - 1))


class LatentsConfig(BaseModel):
    """The pretrained autoencoder whose latents are stored, and of which images."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = Field(description="id or path of an autoencoder of diffusers")
    revision: str | None = Field(None, description="of an id")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of its weights and arithmetic, and of the latents"
    )
    image_size: int = Field(gt=0, description="side of the square images, pixels")

    @field_validator("model")
    @classmethod
    def _is_pretrained(cls, model: str) -> str:
        if model in (PIXELS, FITTED):
            raise InputError(f"'{model}' has no latents before the training; name a pretrained autoencoder")
        return model
