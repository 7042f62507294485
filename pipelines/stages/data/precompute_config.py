"""What the shard stage computes ahead of the training, and where. Without torch."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, field_validator

from components.conditioning.config import LEARNED, LatentsConfig, TextConfig
from components.config_field import added_field
from components.shards.stored_features import Features
from pipelines.stages.model_runtime import Placement


class PrecomputeConfig(BaseModel):
    """What the shard stage computes once, in place of every training."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    latents: LatentsConfig | None = added_field(
        None, description="of the images, by the autoencoder that train.autoencoder names"
    )
    texts: TextConfig | None = added_field(
        None, description="features of every caption, by the encoder that train.text names"
    )
    encoders: Placement = added_field(Placement(), description="where both run")

    @property
    def precomputes(self) -> bool:
        """Whether there is anything to compute."""
        return self.latents is not None or self.texts is not None

    def pinned(self, features: Features) -> Self:
        """With the commits that were found in place of branches, so that every worker loads the same."""
        update: dict[str, Any] = {}
        for kind, found in (("latents", features.latents), ("texts", features.texts)):
            config = getattr(self, kind)
            if config is not None and found is not None and found.revision is not None:
                update[kind] = config.model_copy(update={"revision": found.revision})
        return self.model_copy(update=update)

    @field_validator("texts")
    @classmethod
    def _are_frozen(cls, texts: TextConfig | None) -> TextConfig | None:
        if texts is not None and texts.model == LEARNED:
            raise ValueError("a learned vocabulary has no features; name a pretrained text encoder")
        return texts
