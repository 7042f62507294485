"""The four edits: what each starts from, and which part of the image must stay (Song 2023, Algorithm 4).

What is known of an image are some of its coordinates under an orthogonal transform A: pixels (inpainting),
each pixel's luma (colorization), the means of patches (super-resolution). Algorithm 4 puts them back,
A⁻¹[(A y) ⊙ (1 - Ω) + (A x) ⊙ Ω]. As A is orthogonal, that is x minus x's known part plus y's, and the known
part is an orthogonal projection, so that no edit needs its A. Of strokes nothing is known: they are a start
(SDEdit, Meng 2022).

Images here are single ones, (3, H, W) in [-1, 1].
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from components.errors import InputError

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601), as in Pillow's convert("L")
LIMIT = 1.0  # of a pixel's absolute value
STROKES_STRENGTH = 0.5


@dataclass(frozen=True, kw_only=True)
class Edit(ABC):
    """One image to be edited.

    start: (3, H, W), the plainest image with the known part; what the first noise is added to. strength: the
    time of that noise, in (0, 1]; at 1 nothing is left of the start but its known part, which is put back.
    """

    start: Tensor
    strength: float = 1.0
    steps: ClassVar[int] = 8  # by default; the demo's student gains little by more

    @abstractmethod
    def known(self, image: Tensor) -> Tensor:
        """The known part of an image, as an image: a linear, orthogonal projection."""

    @property
    @abstractmethod
    def unknown_numbers(self) -> int:
        """How many of the image's numbers are free: the dimensions of the rest."""

    @abstractmethod
    def _least(self, factors: Tensor) -> Tensor:
        """The least of the factors (3, H, W) of those values that can only shrink together."""

    def unknown(self, image: Tensor) -> Tensor:
        """The part of an image that is not known."""
        return image - self.known(image)

    def restore(self, estimate: Tensor) -> Tensor:
        """The estimate with the known part put back, all of it within [-1, 1], exact but for rounding.

        Where putting it back leaves [-1, 1], the values move towards `start`, which has the same known part,
        as far as they must: pixels are clipped, colours fade to grey, the contrast of a patch falls.
        """
        away = self.unknown(estimate) - self.unknown(self.start)
        room = torch.where(away > 0, LIMIT - self.start, -LIMIT - self.start)
        factors = torch.where(away == 0, 1.0, room / away).clamp(0, 1)
        return self.start + self._least(factors) * away


@dataclass(frozen=True, kw_only=True)
class Inpainting(Edit):
    """Known are the pixels outside of `hole` (1, H, W), True where it is to be filled."""

    hole: Tensor

    def known(self, image: Tensor) -> Tensor:
        return torch.where(self.hole, 0, image)

    @property
    def unknown_numbers(self) -> int:
        return 3 * int(self.hole.sum())

    def _least(self, factors: Tensor) -> Tensor:
        return factors


@dataclass(frozen=True, kw_only=True)
class Colorization(Edit):
    """Known is the luma of every pixel; `start` is grey."""

    def known(self, image: Tensor) -> Tensor:
        weights = _luma_weights(image)
        return weights / weights.square().sum() * luma(image)

    @property
    def unknown_numbers(self) -> int:
        return self.start.numel() * 2 // 3

    def _least(self, factors: Tensor) -> Tensor:
        return factors.amin(0, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class SuperResolution(Edit):
    """Known are the means of patches of `factor` × `factor` pixels, by colour; `start` has flat patches."""

    factor: int

    def known(self, image: Tensor) -> Tensor:
        return enlarged(F.avg_pool2d(image, self.factor), self.factor)

    @property
    def unknown_numbers(self) -> int:
        return self.start.numel() - self.start.numel() // self.factor**2

    def _least(self, factors: Tensor) -> Tensor:
        return enlarged(-F.max_pool2d(-factors, self.factor), self.factor)


@dataclass(frozen=True, kw_only=True)
class StrokeGuided(Edit):
    """Nothing is known; `start` is a painting of strokes, and `strength` says how freely it is read."""

    strength: float = STROKES_STRENGTH
    steps: ClassVar[int] = 2  # each further one strays from the strokes

    def known(self, image: Tensor) -> Tensor:
        return torch.zeros_like(image)

    @property
    def unknown_numbers(self) -> int:
        return self.start.numel()

    def _least(self, factors: Tensor) -> Tensor:
        return factors

    def restore(self, estimate: Tensor) -> Tensor:
        """The estimate as it is."""
        return estimate


def inpainting(image: Tensor, hole: Tensor) -> Inpainting:
    """Fill the `hole` (H, W, bool) of an image; it starts as the mean of the pixels around it.

    Raises InputError for a hole that is nothing or everything.
    """
    if not hole.any():
        raise InputError("nothing is to be filled: no pixel of the image's centre square is masked")
    if hole.all():
        raise InputError("everything is to be filled: the mask leaves nothing of the image; generate one")
    mean = image[:, ~hole].mean(1).view(3, 1, 1)
    return Inpainting(start=torch.where(hole, mean, image), hole=hole[None])


def colorization(image: Tensor) -> Colorization:
    """Colour an image, whose own colours do not count."""
    return Colorization(start=luma(image).expand(3, -1, -1))


def super_resolution(small: Tensor, factor: int) -> SuperResolution:
    """Enlarge an image (3, h, w) `factor` times: each of its pixels is the mean of a patch."""
    return SuperResolution(start=enlarged(small, factor), factor=factor)


def stroke_guided(strokes: Tensor, strength: float = STROKES_STRENGTH) -> StrokeGuided:
    """Make an image of a painting of strokes. Raises InputError for a strength that is none."""
    if not 0 < strength <= 1:
        raise InputError(f"strength is {strength:g}; it must be above 0 and at most 1")
    return StrokeGuided(start=strokes, strength=strength)


def luma(image: Tensor) -> Tensor:
    """The luma of an image, (1, H, W)."""
    return (_luma_weights(image) * image).sum(0, keepdim=True)


def enlarged(image: Tensor, factor: int) -> Tensor:
    """Each pixel as a patch of `factor` × `factor` equal ones."""
    return image.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def _luma_weights(image: Tensor) -> Tensor:
    return image.new_tensor(LUMA).view(3, 1, 1)
