"""Whether one image is a copy of another: the two thumbnails are laid over each other and compared.

A copy may be cut or bordered by a few per cent, resized, encoded again, brighter or darker, and carry a
caption or a watermark. So the second image is fitted to the first by scale, shift, gain, offset and blur
(Gauss-Newton from coarse to fine, Lucas and Kanade 1981; robust weights); agreement.py looks at what is left.
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from components.filtering.agreement import Overlaid, agree
from components.filtering.signature import SIDE, Box

BATCH = 64  # pairs fitted together
_FINE = 96  # a side of the last comparison, samples of the trimmed image
_LEAST_COVER, _LEAST_COVER_PLAIN = 0.6, 0.2  # of the first image, by the second; by one on a plain ground
_SCALE, _SHIFT = (0.75, 1.34), 0.08  # of the whole image; the shift in halves of its side
_SQUEEZED = 0.2  # log of the scales' ratio
_GAIN = (0.7, 1.4)  # brightness within 10% and what clipping makes of it
_LEAST_LIKENESS = 0.7  # correlation of the images at 8 samples a side
_WHITE, _WHITE_WEIGHT = 248.0, 0.2  # levels; of a sample that is white in both, in a fit
_PLAIN_LEVELS, _PLAIN = 26.0, 0.7  # of the edge of an image on a plain ground; share of its samples
_ROWS = (slice(None), slice(1, None), slice(-1))  # of them, of which the best counts
_TRIMMED = 0.15  # of a box's edges, in halves of the image's side
_COARSE_MISFIT = 9.0  # mean levels left over at 24 samples a side, above which nothing is looked at closer


def are_copies(
    thumbnails: Sequence[bytes], boxes: Sequence[Box], pairs: Sequence[tuple[int, int, bool]]
) -> list[bool]:
    """For each pair of indices, whether the images are copies; `True` in a pair: when the second is mirrored.

    thumbnails, boxes: as `signature_of` makes them.
    """
    indices = {index for pair in pairs for index in pair[:2]}  # an image is in several pairs
    decoded = {index: _decode(thumbnails[index]) for index in indices}
    found: list[bool] = []
    # The one with more in it is the frame: what it has beyond the other must count against them.
    ordered = [(b, a, flip) if _area(boxes[b]) > _area(boxes[a]) else (a, b, flip) for a, b, flip in pairs]
    for start in range(0, len(pairs), BATCH):
        batch = ordered[start : start + BATCH]
        first = torch.stack([decoded[a] for a, _, _ in batch])
        second = torch.stack([decoded[b].flip(-1) if flip else decoded[b] for _, b, flip in batch])
        boxes_a = torch.tensor([_signed(boxes[a], False) for a, _, _ in batch])
        boxes_b = torch.tensor([_signed(boxes[b], flip) for _, b, flip in batch])
        found += _compare(first, second, boxes_a, boxes_b).tolist()
    return found


def _decode(thumbnail: bytes) -> Tensor:
    """Luminance and both chromas, (3, SIDE, SIDE), levels."""
    with Image.open(io.BytesIO(thumbnail)) as image:
        planes = np.asarray(image.convert("YCbCr"), np.float32)
    return torch.from_numpy(planes.transpose(2, 0, 1).copy())


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _signed(box: Box, flip: bool) -> list[float]:
    """A box in coordinates from -1 to 1."""
    left, upper, right, lower = (2 * edge - 1 for edge in box)
    return [-right, upper, -left, lower] if flip else [left, upper, right, lower]


def _compare(first: Tensor, second: Tensor, boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """first, second: (N, 3, SIDE, SIDE). Returns (N,) bool."""
    result = torch.zeros(len(first), dtype=torch.bool)
    alike = _alike(first, second, boxes_a, boxes_b)
    if not alike.all():
        if alike.any():
            result[alike] = _compare(first[alike], second[alike], boxes_a[alike], boxes_b[alike])
        return result
    a, b = _pyramid(first[:, 0]), _pyramid(second[:, 0])
    least_cover = _least_cover(second)
    maps, misfit = _coarse(a[0], b[0], boxes_a, boxes_b, least_cover)
    near = ((misfit < _COARSE_MISFIT) & _in_place(maps, boxes_a, boxes_b)).nonzero()[:, 0]
    if len(near):
        fitted = _Fit(a[1][near], b[1][near], maps[near], steps=3)
        fine = F.interpolate(first[near], (_FINE, _FINE), mode="bilinear", antialias=True)
        fitted = _Fit(fine[:, 0], b[2][near], fitted.maps, steps=2)
        placed = _in_place(fitted.maps, boxes_a[near], boxes_b[near])
        low, high = _GAIN
        fits = placed & (fitted.gain > low) & (fitted.gain < high) & (fitted.cover >= least_cover[near])
        result[near] = fits & agree(_overlaid(fine, second[near], fitted, boxes_a[near]))
    return result


def _alike(first: Tensor, second: Tensor, boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Whether a closer look is worth its time: similar large features, or trimmed differently. (N,) bool."""
    small = [F.avg_pool2d(image[:, 0], SIDE // 8) for image in (first, second)]
    # A caption along an edge may have covered a row.
    cosine = torch.stack([_correlation(*(plane[:, rows] for plane in small)) for rows in _ROWS]).amax(0)
    trimmed_otherwise = (boxes_a - boxes_b).abs().amax(1) > _TRIMMED
    return (cosine > _LEAST_LIKENESS) | trimmed_otherwise


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    one, other = (plane.flatten(1) - plane.flatten(1).mean(1, keepdim=True) for plane in (one, other))
    return F.cosine_similarity(one, other)


def _pyramid(plane: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    halves = F.avg_pool2d(plane[:, None], 2)
    return F.interpolate(halves, (24, 24), mode="area")[:, 0], halves[:, 0], plane


def _least_cover(second: Tensor) -> Tensor:
    """The least share of the first image that the second must cover; less where it is on a plain ground. (N,)

    There a watermark or a caption makes the trimmed image larger, and what was trimmed is known to be plain.
    """
    edges = torch.cat([second[:, :, 0], second[:, :, -1], second[:, :, :, 0], second[:, :, :, -1]], -1)
    colours = edges.median(-1, keepdim=True).values
    plain = ((edges - colours).abs().amax(1) < _PLAIN_LEVELS).float().mean(-1) > _PLAIN
    return torch.where(plain, _LEAST_COVER_PLAIN, _LEAST_COVER)


def _coarse(
    a: Tensor, b: Tensor, boxes_a: Tensor, boxes_b: Tensor, least_cover: Tensor
) -> tuple[Tensor, Tensor]:
    """The better of two beginnings, content on content or image on image; and what it leaves over."""
    identity = torch.tensor([1.0, 0.0, 1.0, 0.0]).expand(len(a), 4)
    on_whole = _place(boxes_b, boxes_a)
    best, least = identity, torch.full((len(a),), torch.inf)
    for maps in (identity, on_whole):
        fitted = _Fit(a, b, maps, steps=5)
        inside = fitted.inside.sum((1, 2)).clamp(min=1)
        misfit = (fitted.residual.abs().clamp(max=40) * fitted.inside).sum((1, 2)) / inside
        wrong = (fitted.cover < least_cover) | (fitted.gain < _GAIN[0] / 1.3)
        misfit = torch.where(wrong, torch.inf, misfit)
        better = misfit < least
        best, least = torch.where(better[:, None], fitted.maps, best), torch.where(better, misfit, least)
    return best, least


def _place(boxes_b: Tensor, boxes_a: Tensor) -> Tensor:
    """Maps from the coordinates within box a to those within box b of the same place in the image."""

    def axis(low: int, high: int) -> list[Tensor]:
        half_a, half_b = (boxes_a[:, high] - boxes_a[:, low]) / 2, (boxes_b[:, high] - boxes_b[:, low]) / 2
        shift = (boxes_a[:, high] + boxes_a[:, low] - boxes_b[:, high] - boxes_b[:, low]) / 2
        return [half_a / half_b, shift / half_b]

    return torch.stack([*axis(0, 2), *axis(1, 3)], 1)


class _Fit:
    """The second plane fitted to the first. maps: scale and shift along x, then along y; (N, 4)."""

    def __init__(self, target: Tensor, source: Tensor, maps: Tensor, steps: int) -> None:
        count, side = target.shape[:2]
        self.maps, self._axis = maps, (torch.arange(side) + 0.5) / side * 2 - 1
        across, down = _gradients(target)
        moves = [across * self._axis, across, down * self._axis[:, None], down]
        # Columns: the source (gain), one (offset), its Laplacian (blur), the derivatives by the map.
        columns = torch.stack([target, torch.ones_like(target), target, *moves], 1)
        columns = columns.reshape(count, 7, -1)
        wanted, robust = target.reshape(count, -1), torch.ones(())
        for step in range(steps + 1):
            columns = columns if step < steps else columns[:, :3].clone()
            warped, self.inside = self.warp(source)
            columns[:, 0] = warped.reshape(count, -1)
            columns[:, 2] = _laplacian(warped).reshape(count, -1)
            # White stays white when an image is brightened.
            white = (wanted > _WHITE) & (columns[:, 0] > _WHITE)
            trusted = self.inside.reshape(count, -1) * torch.where(white, _WHITE_WEIGHT, 1.0)
            weighted = columns * (trusted[:, None] * robust)
            normal = weighted @ columns.transpose(1, 2)
            normal = normal + torch.diag_embed(1e-4 * normal.diagonal(dim1=1, dim2=2) + 1e-3)
            solved = torch.linalg.solve(normal, weighted @ wanted[..., None])[..., 0]
            residual = wanted - (solved[:, None] @ columns)[:, 0]
            robust = 1 / (1 + (residual[:, None] / 20) ** 2) ** 2
            if step < steps:
                self.maps = _moved(self.maps, solved[:, 3:].clamp(-0.1, 0.1))
        self.residual = residual.reshape(target.shape)
        self.gain, self.cover = solved[:, 0], self.inside.mean((1, 2))

    def warp(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (N, H, W) as seen from the target's samples, and which of them lie in it (1 or 0)."""
        x = self.maps[:, 0:1] * self._axis + self.maps[:, 1:2]
        y = self.maps[:, 2:3] * self._axis + self.maps[:, 3:4]
        side = len(self._axis)
        grid = torch.stack([x[:, None].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], -1)
        warped = F.grid_sample(source[:, None], grid, align_corners=False, padding_mode="border")
        inside = (x.abs() <= 1)[:, None, :] & (y.abs() <= 1)[:, :, None]
        return warped[:, 0], inside.float()


def _moved(maps: Tensor, step: Tensor) -> Tensor:
    scale_x, shift_x, scale_y, shift_y = maps.unbind(1)
    dx, x, dy, y = step.unbind(1)
    return torch.stack(
        [scale_x * (1 + dx), shift_x + scale_x * x, scale_y * (1 + dy), shift_y + scale_y * y], 1
    )


def _gradients(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences, in levels per unit of the coordinates from -1 to 1."""
    half = plane.shape[1] / 4
    across = F.pad((plane[:, :, 2:] - plane[:, :, :-2]) * half, (1, 1))
    return across, F.pad((plane[:, 2:] - plane[:, :-2]) * half, (0, 0, 1, 1))


def _laplacian(plane: Tensor) -> Tensor:
    padded = F.pad(plane[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    around = padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2] + padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1]
    return around - 4 * plane


def _in_place(maps: Tensor, boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Whether maps between the trimmed images move the whole ones no more than crops and borders do. (N,)

    Without this, the same drawing elsewhere on an empty page would be a copy.
    """
    back = _place(boxes_b, boxes_a)  # from the same place in the image to that in the box
    scale = maps[:, [0, 2]] / back[:, [0, 2]]
    width_b = (boxes_b[:, 2:] - boxes_b[:, :2]) / 2
    middle_a, middle_b = (boxes_a[:, 2:] + boxes_a[:, :2]) / 2, (boxes_b[:, 2:] + boxes_b[:, :2]) / 2
    shift = middle_b + width_b * maps[:, [1, 3]] - scale * middle_a
    low, high = _SCALE
    squeezed = (scale[:, 0] / scale[:, 1]).log().abs() > _SQUEEZED
    return ((scale > low) & (scale < high) & (shift.abs() < _SHIFT)).all(1) & ~squeezed


def _overlaid(first: Tensor, second: Tensor, fitted: _Fit, boxes: Tensor) -> Overlaid:
    """The fitted images as they are compared. first: (N, 3, _FINE, _FINE); second: (N, 3, SIDE, SIDE)."""
    warped = torch.stack([fitted.warp(second[:, plane])[0] for plane in range(3)], 1)
    chroma = (warped[:, 1:] - 128) * fitted.gain[:, None, None, None] + 128
    source = torch.cat([(first[:, 0] - fitted.residual)[:, None], chroma], 1)
    return Overlaid(first, source, fitted.inside, warped, (boxes[:, [1, 3]] + 1) / 2)
