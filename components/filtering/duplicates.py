"""Duplicates: the same bytes, or the same image encoded again. First in corpus order wins.

`perceptual_hash` is computed for each image when it is decoded, `find_duplicates` once for the whole corpus,
on the hashes only.

A perceptual hash here is pHash (imagehash, 64 bits) followed by the image's mean colours on a 16x16 grid.
pHash alone cannot distinguish one flag or one skin tone from another, nor a red circle from a blue one: it
sees structure in grey. The grid alone cannot distinguish one page of print from another. Encoding an image
again moves a few bits of the one and each colour of the other by a few levels; a near duplicate is near in
both.

Measured on the toy web and the emoji web, 5,400 images: none of 320 copies (thumbnails, other formats and
qualities) is missed, and 5 images that only look alike are taken for copies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from components.errors import InputError

GRID = 16  # cells a side
PHASH_DIGITS = 16  # 64 bits in hex
HASH_DIGITS = PHASH_DIGITS + 2 * 3 * GRID * GRID


class DuplicateRules(BaseModel):
    """How near is near. max_levels 0 and max_bits 0 leave only images that are equal in both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    near: bool = Field(default=True, description="whether images encoded again count, not only equal bytes")
    max_bits: int = Field(default=20, ge=0, le=64, description="differing bits of pHash, of 64")
    max_levels: int = Field(
        default=18, ge=0, le=64, description="largest difference of a cell's mean colour, levels of 255"
    )


@dataclass(frozen=True)
class Hashed:
    """What of a record the search for duplicates sees: its bytes' sha256, and its `perceptual_hash`."""

    sha256: str
    phash: str


@dataclass(frozen=True)
class Duplicate:
    """A row that repeats an earlier one. of: the earlier row's index. exact: the same bytes."""

    of: int
    exact: bool


def perceptual_hash(image: Image.Image) -> str:
    """1,552 hex digits: pHash of the luminance, then red, green, blue of each cell, row by row."""
    # Bilinear: cells overlap, so that a shift by part of a pixel at an edge moves a colour little.
    cells = image.convert("RGB").resize((GRID, GRID), Image.Resampling.BILINEAR)
    return f"{imagehash.phash(image)}{cells.tobytes().hex()}"


def find_duplicates(rows: Sequence[Hashed], rules: DuplicateRules) -> dict[int, Duplicate]:
    """Rows that repeat an earlier row which is itself none; index -> which one. Depends on the order only."""
    duplicates: dict[int, Duplicate] = {}
    seen: dict[str, int] = {}  # sha256 -> index
    kept = _KeptImages(rules)
    for index, row in enumerate(rows):
        first = seen.get(row.sha256)
        if first is not None:
            duplicates[index] = Duplicate(first, exact=True)
            continue
        if rules.near:
            signature = _signature(row.phash)
            near = kept.first_near(signature)
            if near is not None:
                duplicates[index] = Duplicate(near, exact=False)
                seen[row.sha256] = near  # more of these bytes repeat the same first row
                continue
            kept.add(index, signature)
        seen[row.sha256] = index
    return duplicates


@dataclass(frozen=True)
class _Signature:
    bits: np.uint64
    colours: npt.NDArray[np.int16]  # (3 * GRID * GRID,)


def _signature(phash: str) -> _Signature:
    if len(phash) != HASH_DIGITS:
        raise InputError(
            f"a perceptual hash has {HASH_DIGITS} hex digits, this one {len(phash)}: {phash[:20]}"
        )
    colours = np.frombuffer(bytes.fromhex(phash[PHASH_DIGITS:]), np.uint8).astype(np.int16)
    return _Signature(np.uint64(int(phash[:PHASH_DIGITS], 16)), colours)


class _KeptImages:
    """The images kept so far, in buckets such that whatever is near lies in a bucket that is looked at.

    The sums of colour over a few large regions move by no more than max_levels times their number of values
    when no value moves by more than max_levels. So an image is filed under those sums, cut into steps, and
    looked for under its own and, where a sum lies within reach of the next step, under that one too: nothing
    near is missed, and an image is compared with few others.
    """

    STEP = 4  # a step, in reaches: wide enough that most sums are out of reach of the next one

    def __init__(self, rules: DuplicateRules) -> None:
        self._rules = rules
        self._regions = _regions()
        self._reach = rules.max_levels * self._regions.sum(1)  # (regions,)
        self._buckets: dict[tuple[int, ...], list[int]] = {}
        self._rows: list[int] = []
        self._bits = np.empty(1024, np.uint64)
        self._colours = np.empty((1024, 3 * GRID * GRID), np.int16)

    def add(self, row: int, signature: _Signature) -> None:
        position = len(self._rows)
        if position == len(self._bits):
            self._bits = np.concatenate([self._bits, np.empty_like(self._bits)])
            self._colours = np.concatenate([self._colours, np.empty_like(self._colours)])
        self._rows.append(row)
        self._bits[position] = signature.bits
        self._colours[position] = signature.colours
        sums = self._regions @ signature.colours
        self._buckets.setdefault(tuple((sums // self._step()).tolist()), []).append(position)

    def first_near(self, signature: _Signature) -> int | None:
        """The earliest kept row that is near, or None."""
        candidates = np.sort(np.array(self._candidates(signature), np.intp))
        if not len(candidates):
            return None
        bits = np.bitwise_count(self._bits[candidates] ^ signature.bits)
        candidates = candidates[bits <= self._rules.max_bits]
        levels = np.abs(self._colours[candidates] - signature.colours).max(axis=1, initial=0)
        candidates = candidates[levels <= self._rules.max_levels]
        return self._rows[candidates[0]] if len(candidates) else None

    def _candidates(self, signature: _Signature) -> list[int]:
        sums, step = self._regions @ signature.colours, self._step()
        lowest, highest = (sums - self._reach) // step, (sums + self._reach) // step
        steps = [range(low, high + 1) for low, high in zip(lowest.tolist(), highest.tolist(), strict=True)]
        candidates: list[int] = []
        for bucket in product(*steps):
            candidates += self._buckets.get(bucket, ())
        return candidates

    def _step(self) -> npt.NDArray[np.int64]:
        return np.maximum(self.STEP * self._reach, 1)


def _regions() -> npt.NDArray[np.int64]:
    """Masks over the flattened grid: each quadrant in each colour. (12, 3 * GRID * GRID)"""
    row, column, channel = np.indices((GRID, GRID, 3))
    half = GRID // 2
    masks = [
        (row // half == y) & (column // half == x) & (channel == colour)
        for y in (0, 1)
        for x in (0, 1)
        for colour in range(3)
    ]
    return np.stack(masks).reshape(len(masks), -1).astype(np.int64)
