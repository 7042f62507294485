"""The shard index: which tars there are, with the size, hash and sample count of each.

`index.json` lies beside the tars. Readers start from it, and trust no tar that it does not name or whose
sha256 differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from upath import UPath

from components.conditioning.identity import FeatureIdentity
from components.config_field import added_field
from components.errors import InputError
from components.image_size import WrittenSize

INDEX_NAME = "index.json"
TRAIN: Literal["train"] = "train"
HOLDOUT: Literal["holdout"] = "holdout"
Split = Literal["train", "holdout"]
Location = str | Path | UPath


class Shard(BaseModel):
    """One tar: file name, split, size in bytes, sha256 of its bytes (hex), samples in it.

    bucket: the size that its images are trained at; None where a training's square is for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+\.tar$")]  # a bare name: never a path
    split: Split
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    samples: Annotated[int, Field(ge=0)]
    bucket: WrittenSize | None = added_field(None)


class ShardIndex(BaseModel):
    """All tars of one output of the shard stage, and what made the features that lie in them, if any do."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = 1
    shards: tuple[Shard, ...]
    latents: FeatureIdentity | None = added_field(None)
    texts: FeatureIdentity | None = added_field(None)

    @model_validator(mode="after")
    def _names_are_unique(self) -> "ShardIndex":
        names = [shard.name for shard in self.shards]
        if len(names) != len(set(names)):
            raise InputError("a tar is listed twice")
        return self

    def split(self, name: Split) -> tuple[Shard, ...]:
        """The tars of one split, in index order."""
        return tuple(shard for shard in self.shards if shard.split == name)

    def samples(self, name: Split) -> int:
        """Samples of one split."""
        return sum(shard.samples for shard in self.split(name))

    @property
    def buckets(self) -> dict[str, int]:
        """Samples of each bucket, as it is written; none where there are no buckets."""
        counts: dict[str, int] = {}
        for shard in self.shards:
            if shard.bucket is not None:
                counts[str(shard.bucket)] = counts.get(str(shard.bucket), 0) + shard.samples
        return counts

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


def load_index(path: Location) -> ShardIndex:
    """Read an index.json. Raises InputError with one line that names the file and what is wrong with it."""
    file = UPath(path)
    try:
        return ShardIndex.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise InputError(f"{path}: there is no shard index here; run the shard stage first") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the file"
        raise InputError(
            f"{path}: not a shard index ({where}: {first['msg']}); run the shard stage again"
        ) from None


@dataclass(frozen=True)
class PlacedShard:
    """A tar of an index and where it lies."""

    path: UPath
    shard: Shard


def find_shards(index_paths: Sequence[Location], split: Split) -> tuple[PlacedShard, ...]:
    """The tars of a split over several indexes (one per snapshot), ordered by content, empty ones left out.

    Their order does not depend on where they lie or how the indexes are listed. Raises InputError, one line
    naming the tar, where one is missing, has another size than listed, or comes twice.
    """
    placed: dict[str, PlacedShard] = {}
    for index_path in index_paths:
        folder = UPath(index_path).parent
        index = load_index(index_path)
        present = {path.name: path for path in folder.iterdir()}
        for shard in index.split(split):
            path = folder / shard.name
            if shard.name not in present:
                raise InputError(f"{path}: this tar of the index is missing; run the shard stage again")
            check_size(path, shard, present[shard.name].stat().st_size)
            if shard.sha256 in placed and shard.samples:
                raise InputError(f"{path}: the same tar as {placed[shard.sha256].path}; name it once")
            placed[shard.sha256] = PlacedShard(path, shard)
    return tuple(placed[sha256] for sha256 in sorted(placed) if placed[sha256].shard.samples)


def check_size(path: Location, shard: Shard, size: int) -> None:
    """Raise InputError if a tar of `size` bytes cannot be the one that the index lists."""
    if size != shard.bytes:
        raise InputError(
            f"{path}: torn: {size} bytes, the index lists {shard.bytes}; run the shard stage again"
        )
