"""A verified tar in memory, as the loader reads it."""

from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from components.captioning.kinds import captions_of
from components.errors import InputError
from components.image_size import ImageSize
from components.shards.decode import decode
from components.shards.index import PlacedShard
from components.shards.reader import read_tar
from components.shards.writer import LATENT_EXTENSION

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class OpenShard:
    """A verified tar in memory: its images either encoded or all decoded and resized, or its features."""

    path: str
    size: ImageSize
    keys: list[str]
    captions: list[Mapping[str, str | None]]
    encoded: list[bytes]
    decoded: list[Pixels]
    features: list[dict[str, bytes]]

    @classmethod
    def read(
        cls, placed: PlacedShard, size: ImageSize, decode: bool, workers: int, features: Set[str]
    ) -> "OpenShard":
        """features: extensions of those that are kept; with latents among them, images are not."""
        path = str(placed.path)
        samples = read_tar(placed.path, placed.shard)
        shard = cls(
            path,
            size,
            [s.key for s in samples],
            [captions_of(s.meta) for s in samples],
            [] if LATENT_EXTENSION in features else [s.image for s in samples],
            [],
            [{name: data for name, data in s.features.items() if name in features} for s in samples],
        )
        if not decode:
            return shard
        with ThreadPoolExecutor(max(1, workers)) as pool:
            decoded = list(pool.map(shard.image, range(len(samples))))
        return replace(shard, encoded=[], decoded=decoded)

    def feature(self, index: int, extension: str) -> bytes:
        """The file of a sample's stored features."""
        try:
            return self.features[index][extension]
        except KeyError:
            raise InputError(
                f"{self.path}: sample {self.keys[index]} has no {extension}, which the index promises; run"
                " the shard stage again"
            ) from None

    def image(self, index: int) -> Pixels:
        """(height, width, 3)"""
        if self.decoded:
            return self.decoded[index]
        try:
            return decode(self.encoded[index], self.size)
        except ValueError as error:
            raise InputError(f"{self.path}: sample {self.keys[index]} cannot be decoded: {error}") from error
