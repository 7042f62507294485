"""Precomputed features in the tars, and whether they are those that a training wants.

    {key}.latent.npy    of the image, (C, h, w)
    {key}.text.npz      of each caption by its kind, (L, D)

Both are stored in the precision that they were computed in, without loss (bfloat16, which NumPy lacks, as its
bits), so training on them is training on what it would compute. Nothing in them is ever unpickled.
"""

import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.conditioning.identity import FeatureIdentity
from components.errors import InputError, one_line
from components.shards.index import Location, load_index

if TYPE_CHECKING:
    from torch import Tensor

BFLOAT16 = "bfloat16"
NO_CAPTION = "none"  # in place of a kind: the empty text, of a record that has no caption


@dataclass(frozen=True)
class Features:
    """What made the latents and the texts' features: of some tars, or of those that a training computes."""

    latents: FeatureIdentity | None = None
    texts: FeatureIdentity | None = None

    def same(self, other: "Features") -> bool:
        """Whether both are of the same encoders."""
        pairs = ((self.latents, other.latents), (self.texts, other.texts))
        return all(one.same_features(two) if one and two else one is two for one, two in pairs)

    def as_dict(self) -> dict[str, Any]:
        """For a receipt: by kind, those that there are."""
        kinds = {"latents": self.latents, "texts": self.texts}
        return {name: identity.model_dump() for name, identity in kinds.items() if identity}


def features_of(index_paths: Iterable[Location]) -> Features:
    """What is stored in the tars of all indexes. Raises InputError, one line, where they differ in it."""
    features: Features | None = None
    for path in index_paths:
        index = load_index(path)
        here = Features(index.latents, index.texts)
        features = here if features is None else features
        for kind in ("latents", "texts"):
            first, other = getattr(features, kind), getattr(here, kind)
            if (first is None) != (other is None) or (first and not first.same_features(other)):
                raise InputError(
                    f"{path}: its {kind} are of {other or 'no encoder'}, those of the other snapshots of"
                    f" {first or 'no encoder'}; make the shards of all with the same shard.{kind}"
                )
    return features or Features()


def usable(stored: Features, wanted: Features) -> tuple[bool, bool]:
    """Whether the stored latents, and the stored texts, are read in place of computing those wanted.

    Not where none are stored, nor where the training has an encoder of its own that learns or is fitted
    (None in `wanted`). Raises InputError, one line, where other ones are stored than wanted.
    """
    for kind, setting in (("latents", "train.autoencoder"), ("texts", "train.text")):
        have, want = getattr(stored, kind), getattr(wanted, kind)
        if have and want and not have.same_features(want):
            raise InputError(
                f"the {kind} in the shards are of {have}, and {setting} is {want}; set {setting} to what the"
                f" shards have, or shard.{kind} to what the training wants"
            )
    return bool(stored.latents and wanted.latents), bool(stored.texts and wanted.texts)


def pack_latent(latent: "Tensor", dtype: str) -> bytes:
    """The file of an image's latents (C, h, w) whose values are those of a `dtype`."""
    stream = io.BytesIO()
    np.save(stream, _stored(latent, dtype), allow_pickle=False)
    return stream.getvalue()


def unpack_latent(data: bytes, dtype: str, where: str) -> "Tensor":
    """Those latents again, in float32. where: the tar and the key, for errors."""
    try:
        return _restored(np.load(io.BytesIO(data), allow_pickle=False), dtype)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise InputError(f"{where}: its latents cannot be read ({one_line(error)})") from error


def pack_texts(features: Mapping[str, "Tensor"], dtype: str) -> bytes:
    """The file of captions' features (L, D), by kind."""
    stream = io.BytesIO()
    arrays: dict[str, Any] = {kind: _stored(values, dtype) for kind, values in features.items()}
    np.savez(stream, **arrays)
    return stream.getvalue()


def unpack_text(data: bytes, kind: str, dtype: str, where: str) -> "Tensor":
    """One caption's features again, in float32. kind: "" where the record has none."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return _restored(arrays[kind or NO_CAPTION], dtype)
    except (ValueError, TypeError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{where}: the features of its caption '{kind or NO_CAPTION}' cannot be read ({one_line(error)});"
            " run the shard stage again"
        ) from error


def _stored(values: "Tensor", dtype: str) -> npt.NDArray[Any]:
    import torch

    exact = values.detach().cpu().to(getattr(torch, dtype)).contiguous()
    return exact.view(torch.uint16).numpy() if dtype == BFLOAT16 else exact.numpy()


def _restored(array: Any, dtype: str) -> "Tensor":
    """array: what NumPy found in a file, which may be anything."""
    import torch

    expected = "uint16" if dtype == BFLOAT16 else dtype
    if not isinstance(array, np.ndarray) or array.dtype != expected:
        raise ValueError(f"it is no array of {expected}")
    values = torch.from_numpy(np.ascontiguousarray(array))
    return (values.view(torch.bfloat16) if dtype == BFLOAT16 else values).float()
