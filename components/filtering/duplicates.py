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
_TOGETHER = 65_536  # pairs whose embeddings are multiplied together


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


def copies_in_cell(images: Images, rules: DuplicateRules) -> Orders:
    """Pairs of copies among the images of a cell: (pairs, 2) orders, the earlier one first.

    An image is compared with its nearest ones only. Where there are many copies of one image, those are
    copies themselves: so what was found goes, and what is left is searched again until nothing is found.
    """
    from components.filtering.alignment import are_copies

    found: list[Orders] = [np.empty((0, 2), np.int64)]
    count, compared = len(images.orders), np.empty(0, np.int64)
    left = np.arange(count)  # rows of the cell
    while len(left) > 1:
        pairs = propose(images.hashes[left], rules.max_bits, mirrored=rules.mirrored)
        pairs[:, :2] = left[pairs[:, :2]]
        names = (pairs[:, 0] * count + pairs[:, 1]) * 2 + pairs[:, 2]
        pairs = pairs[~np.isin(names, compared)]
        compared = np.concatenate([compared, names])
        pairs = pairs[(pairs[:, 2] == 1) | (_cosines(images, pairs) >= rules.least_cosine)]
        listed = [(first, second, bool(flip)) for first, second, flip in pairs.tolist()]
        equal = are_copies(images.thumbnails, images.boxes, listed)
        copies = pairs[np.array(equal, bool), :2]
        if not len(copies):
            break
        found.append(images.orders[copies])
        left = np.setdiff1d(left, copies[:, 1])
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


def _cosines(images: Images, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Of the two embeddings; 1 where there are none. (A mirrored image has another one.)"""
    cosines = np.ones(len(pairs), np.float32)
    if images.embeddings.shape[1]:
        for start in range(0, len(pairs), _TOGETHER):
            first, second = pairs[start : start + _TOGETHER, :2].T
            products = np.einsum("nd,nd->n", images.embeddings[first], images.embeddings[second])
            cosines[start : start + _TOGETHER] = np.nan_to_num(products, nan=1.0)
    return cosines
