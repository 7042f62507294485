"""Duplicates: the same bytes, or a copy of an image. The first of them in order survives.

A compact hash proposes, the thumbnails laid over each other decide (`signature.py`, `alignment.py`). Images
whose hashes lie near each other share a cell, and are compared within it; the cells' pairs are joined to
groups of copies. So no step holds more than a cell, or the pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from components.config_field import added_field
from components.filtering.hash_search import propose
from components.filtering.signature import Box

Orders = npt.NDArray[np.int64]


class DuplicateRules(BaseModel):
    """What counts as a copy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    near: bool = Field(default=True, description="whether copies of an image count, not only equal bytes")
    max_bits: int = Field(
        default=24, ge=0, le=96, description="differing bits, of 96, of hashes whose images are compared"
    )
    least_cosine: float = Field(
        default=0.5,
        ge=-1,
        le=1,
        description="of the judge's embeddings of copies; 0.8 spares comparisons with a pretrained judge",
    )
    mirrored: bool = added_field(False, description="whether a mirrored image is a copy, too")


@dataclass(frozen=True)
class Images:
    """Some images, as the search sees them. orders: which of them is first; ascending.

    hashes: (N, 2, HASH_BYTES) of `signature.unpack`. embeddings: (N, D) unit vectors, or (N, 0) without.
    """

    orders: Orders
    hashes: npt.NDArray[np.uint8]
    thumbnails: Sequence[bytes]
    boxes: Sequence[Box]
    embeddings: npt.NDArray[np.float32]

    def take(self, rows: npt.NDArray[np.intp]) -> "Images":
        """Those of these rows, in their order."""
        thumbnails, boxes = [self.thumbnails[row] for row in rows], [self.boxes[row] for row in rows]
        return Images(self.orders[rows], self.hashes[rows], thumbnails, boxes, self.embeddings[rows])


def copies_in_cell(images: Images, rules: DuplicateRules) -> Orders:
    """Pairs of copies among the images of a cell: (pairs, 2) orders, the earlier one first.

    An image is compared with its nearest ones only. Where there are many copies of one image, those are
    copies themselves: so what was found goes, and what is left is searched again until nothing is found.
    """
    from components.filtering.alignment import are_copies

    found: list[Orders] = [np.empty((0, 2), np.int64)]
    compared: set[tuple[int, int, bool]] = set()
    while len(images.orders) > 1:
        proposed = propose(images.hashes, rules.max_bits, mirrored=rules.mirrored)
        orders = images.orders.tolist()
        pairs = [
            (first, second, flip)
            for first, second, flip in proposed
            if (orders[first], orders[second], flip) not in compared
        ]
        compared |= {(orders[first], orders[second], flip) for first, second, flip in pairs}
        pairs = [pair for pair in pairs if pair[2] or _cosine(images, pair) >= rules.least_cosine]
        equal = are_copies(images.thumbnails, images.boxes, pairs)
        copies = np.array([pair[:2] for pair, is_copy in zip(pairs, equal, strict=True) if is_copy], np.intp)
        if not len(copies):
            break
        found.append(images.orders[copies])
        images = images.take(np.setdiff1d(np.arange(len(orders)), copies[:, 1]))
    return np.concatenate(found)


def survivors(pairs: Orders) -> tuple[Orders, Orders]:
    """Of pairs of copies, each order that is not the first of its group, and that first; ascending."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    orders, positions = np.unique(pairs, return_inverse=True)
    ends = positions.reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(orders),) * 2)
    groups = connected_components(graph, directed=False)[1]
    first = np.full(len(orders), np.iinfo(np.int64).max)
    np.minimum.at(first, groups, orders)
    repeats = first[groups] != orders
    return orders[repeats], first[groups][repeats]


def _cosine(images: Images, pair: tuple[int, int, bool]) -> float:
    """Of the two embeddings; 1 where there are none. (A mirrored image has another one.)"""
    first, second = images.embeddings[pair[0]], images.embeddings[pair[1]]
    cosine = float(first @ second) if len(first) else 1.0
    return cosine if np.isfinite(cosine) else 1.0
