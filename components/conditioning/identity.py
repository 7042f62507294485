"""What a pretrained encoder is: whoever reads stored features of images or texts compares it first.

Without torch until weights are hashed: the shards' index has such identities in it.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from components.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

SHOWN_DIGITS = 12  # of a digest in a message


class FeatureIdentity(BaseModel):
    """The encoder of stored features, and how much of an image or a text it saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = Field(description="id or path that it was loaded by")
    revision: str | None = Field(description="commit, of an id")
    digest: str = Field(description="sha256 of its weights and settings, wherever it was loaded from")
    dtype: str = Field(description="of its arithmetic and of what is stored")
    size: int = Field(gt=0, description="of latents: the image's side in pixels; of texts: tokens at most")

    def same_features(self, other: "FeatureIdentity") -> bool:
        """Whether both give the same features. Where a model was loaded from does not matter."""
        return (self.digest, self.dtype, self.size) == (other.digest, other.dtype, other.size)

    def __str__(self) -> str:
        name = f"{self.model}@{self.revision}" if self.revision else self.model
        return f"{name} (sha256 {self.digest[:SHOWN_DIGITS]}, {self.dtype}, size {self.size})"


def digest(*parts: bytes) -> str:
    """sha256 (hex) of the parts, in this order."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big"))
        hashed.update(part)
    return hashed.hexdigest()


def parts_of_weights(state: Mapping[str, "Tensor"]) -> list[bytes]:
    """Names, dtypes, shapes and bytes of weights, for `digest`."""
    import torch

    parts = []
    for name, weights in sorted(state.items()):
        data = weights.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        parts += [f"{name} {weights.dtype} {tuple(weights.shape)}".encode(), data.tobytes()]
    return parts


def refuse_non_finite(state: Mapping[str, "Tensor"], what: str) -> None:
    """Raise InputError, one line, where weights are not finite. what: whose they are, and where they lie."""
    import torch

    for name, weights in state.items():
        if weights.is_floating_point() and not bool(torch.isfinite(weights).all()):
            raise InputError(f"{what}: its weights '{name}' are not finite; take another copy of it")
