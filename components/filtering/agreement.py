"""Whether two images that are laid over each other show the same, but for what copies add.

What is left over is looked at in small windows. In a copy the windows agree. Charts, plates, title cards and
pages of one design fit as a whole as well, but some window that has structure in both has another one in
each, and that decides. Three things are forgiven: what clipping at full brightness takes; a caption along the
lower edge, or a mark along the upper one; and a watermark. Of that it is asked that wherever the images
differ, one of them lies between the other and one colour, in thin strokes: something is seen through them.
Where other content stands, some of it lies beyond.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW = 8  # a side of a window; windows overlap by half
_STRUCTURE = 60.0  # least variance (levels squared) of a window that shows something
_NOISE = 60.0  # variance (levels squared) that encoding and sampling leave
_DISAGREES = 0.17  # unexplained share of a window's variance
_ABSENT = 0.6  # the same, of a window whose structure the other image does not have
_STRAY = 0.005  # share of windows with structure that may disagree for no reason
_CLOSE = 0.015  # unexplained share on average of images that agree but for a few windows
_TYPICAL = 0.12  # largest unexplained share on average: pages of text have the same lines of other words
_WHITE = 248.0  # levels, of the brightest of red, green and blue, from which brightening clips
_CLIPPED = 0.13  # of the luminance: the most that it takes
_STRIP = 0.13  # of the whole image's height, where a caption may be
_BESIDE = 0.6  # share of what is compared that must lie beside it
_MARK_WIDTH = 0.45  # of the image: the most that a mark along the upper edge takes
_CHANGED = 10.0  # levels, of a sample that differs
_MARKED = (0.003, 0.5)  # share of the samples that a watermark changes
_COLOURS = (0.0, 32.0, 64.0, 96.0, 128.0, 160.0, 192.0, 224.0, 255.0)  # that it may have, levels
_TOWARDS = 0.93  # share of the change that goes towards its colour
_BEHIND = 10.0  # levels: standard deviation of what it covers, above which something is seen through it
_OPACITY, _FAINT = 0.8, 0.45  # the most, over something and over a plain image
_WIDTH = 0.33  # share of a plain image's width that it takes at least: no letter or digit does
_STROKE, _THICK = 5, 0.1  # samples; share of the changed ones that may be the middle of such a square
_FEW = 0.25  # share of the changed samples that no edge explains, below which all of them count
_COLOUR_LEVELS = 14.0  # largest difference of a colour window's mean chroma
_TINT_LEVELS = 6.0  # largest such difference on average
_COLOUR_WINDOW = 16  # a side of it


@dataclass(frozen=True)
class Overlaid:
    """Pairs of images, one laid over the other: luminance and both chromas, (N, 3, side, side), levels.

    target: the first. source: the second as fitted to it, gain and offset of the luminance included; second:
    the same without them. seen: 1 where the second lies, (N, side, side). rows: where in the whole first
    image the target begins and ends, as shares of its height, (N, 2).
    """

    target: Tensor
    source: Tensor
    seen: Tensor
    second: Tensor
    rows: Tensor

    def of(self, which: Tensor) -> "Overlaid":
        """Those pairs."""
        return Overlaid(*(getattr(self, field.name)[which] for field in fields(self)))


def agree(pairs: Overlaid) -> Tensor:
    """Whether they show the same, (N,) bool."""
    rim = _WINDOW // 4  # what trimming left of a border, or cut of the image
    seen = pairs.seen.clone()
    seen[:, :rim] = seen[:, -rim:] = 0
    seen[:, :, :rim] = seen[:, :, -rim:] = 0
    left_over = _left_over(pairs)
    same = _same(pairs, left_over, seen, seen)
    other = (~same).nonzero()[:, 0]
    if len(other):
        pairs, left_over, seen = pairs.of(other), left_over[other], seen[other]
        marks = [_captioned(pairs, left_over, seen, upper) for upper in (True, False)]
        marks.append(_watermarked(pairs, left_over, seen))
        same[other] = torch.stack(
            [found & _same(pairs, left_over * beside, seen, beside) for found, beside in marks]
        ).any(0)
    return same


def _captioned(pairs: Overlaid, left_over: Tensor, seen: Tensor, upper: bool) -> tuple[Tensor, Tensor]:
    """Whether a strip along the image's upper or lower edge may hold a caption, (N,); and what is beside it.

    Along the upper edge only a mark in it counts: charts and calendars have their title there.
    """
    down = (torch.arange(seen.shape[1]) + 0.5) / seen.shape[1]
    first, last = pairs.rows.unbind(1)
    height = (first[:, None] + (last - first)[:, None] * down)[:, :, None]
    beside = seen * (height > _STRIP if upper else height < 1 - _STRIP)
    found = beside.flatten(1).sum(1) > _BESIDE * seen.flatten(1).sum(1)
    if upper:
        changed = (left_over.abs() > _CHANGED) & (seen > beside)
        found = found & (changed.any(1).float().mean(1) < _MARK_WIDTH)
    return found, beside


def _left_over(pairs: Overlaid) -> Tensor:
    """Target less source; 0 where only clipping at full brightness tells them apart. (N, side, side)"""
    target = pairs.target[:, 0]
    left = target - pairs.source[:, 0]
    clips = _CLIPPED * target + _NOISE**0.5
    target_clipped = (_brightest(pairs.target) > _WHITE) & (left < 0) & (left > -clips)
    source_clipped = (_brightest(pairs.second) > _WHITE) & (left > 0) & (left < clips)
    return torch.where(target_clipped | source_clipped, 0.0, left)


def _brightest(planes: Tensor) -> Tensor:
    """The largest of red, green and blue of luminance and chromas (N, 3, H, W), levels. (N, H, W)"""
    light, blue, red = planes[:, 0], planes[:, 1] - 128, planes[:, 2] - 128
    return light + torch.stack([1.402 * red, 1.772 * blue, -0.344 * blue - 0.714 * red]).amax(0)


def _same(pairs: Overlaid, left_over: Tensor, seen: Tensor, coloured: Tensor) -> Tensor:
    """Whether the windows agree where `seen` is 1, and the colours where `coloured` is. (N,)"""
    share = _windows(seen)
    whole = share > 0.95

    def mean(plane: Tensor) -> Tensor:
        return _windows(plane * seen) / share.clamp(min=1e-3)

    def count(windows: Tensor) -> Tensor:
        return (windows & whole).flatten(1).sum(1)

    target = pairs.target[:, 0]
    source = target - left_over
    here, there = (mean(plane**2) - mean(plane) ** 2 for plane in (target, source))
    unexplained = mean(left_over**2) / (here + there + _NOISE)
    both = torch.minimum(here, there) > _STRUCTURE
    only = [
        (one > _STRUCTURE) & (4 * another < one) & (unexplained > _ABSENT)
        for one, another in ((here, there), (there, here))
    ]
    windows, structure = count(whole), count(both)
    most = torch.maximum(count(only[0]), count(only[1]))
    typical = (unexplained * (both & whole)).flatten(1).sum(1) / structure.clamp(min=1)
    stray = torch.where(typical < _CLOSE, 3 * _STRAY, _STRAY)
    few = (count(both & (unexplained > _DISAGREES)) <= stray * structure) & (most <= _STRAY * windows)
    return few & (typical < _TYPICAL) & _same_colours(pairs, coloured)


def _watermarked(pairs: Overlaid, left_over: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Whether what differs is a watermark over either image, (N,); and where nothing differs."""
    changed = seen * (left_over.abs() > _CHANGED)
    share = changed.flatten(1).sum(1) / seen.flatten(1).sum(1).clamp(min=1)
    target = pairs.target[:, 0]
    source = target - left_over
    told = changed * ~(_within_reach(target, source) & _within_reach(source, target))
    few = told.flatten(1).sum(1) < _FEW * changed.flatten(1).sum(1)
    told = torch.where(few[:, None, None], changed, told)
    found = _seen_through(source, left_over, told) | _seen_through(target, -left_over, told)
    thick = _eroded(changed).flatten(1).sum(1) / changed.flatten(1).sum(1).clamp(min=1)
    around = F.max_pool2d(changed[:, None], 3, 1, 1)[:, 0]
    low, high = _MARKED
    return found & (share > low) & (share < high) & (thick < _THICK), seen * (1 - around)


def _within_reach(plane: Tensor, other: Tensor) -> Tensor:
    """Which samples have a level that the other has beside them: an edge that lies a little elsewhere."""
    high = F.max_pool2d(other[:, None], 3, 1, 1)[:, 0]
    low = -F.max_pool2d(-other[:, None], 3, 1, 1)[:, 0]
    return (plane < high + _CHANGED / 2) & (plane > low - _CHANGED / 2)


def _eroded(mask: Tensor) -> Tensor:
    return 1 - F.max_pool2d(1 - mask[:, None], _STROKE, 1, _STROKE // 2)[:, 0]


def _seen_through(under: Tensor, change: Tensor, where: Tensor) -> Tensor:
    """Whether the change goes from `under` towards one colour, not all of the way, `where` it is 1. (N,)"""
    count = where.flatten(1).sum(1).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return (values * where).flatten(1).sum(1) / count

    spread = (mean(under**2) - mean(under) ** 2).clamp(min=0).sqrt()
    width = where.amax(1).mean(1)
    varied = spread > _BEHIND
    most = torch.where(varied, _OPACITY, _FAINT)[:, None, None]
    best, all_change = torch.zeros_like(spread), mean(change.abs()).clamp(min=1e-3)
    for colour in _COLOURS:
        away = colour - under
        towards = (away * change > 0) & (change.abs() < most * away.abs())
        best = torch.maximum(best, mean(towards * change.abs()) / all_change)
    return (best > _TOWARDS) & (varied | (width > _WIDTH))


def _same_colours(pairs: Overlaid, seen: Tensor) -> Tensor:
    """Whether the mean chroma of larger windows is the same."""

    def mean(plane: Tensor) -> Tensor:
        return F.avg_pool2d(plane[:, None], _COLOUR_WINDOW, _COLOUR_WINDOW // 2)[:, 0]

    share = mean(seen)
    enough = share > 0.5
    largest = torch.zeros_like(share)
    for plane in (1, 2):
        # Brightening scales the chroma too, but not where it clips.
        differences = [
            mean((pairs.target[:, plane] - other[:, plane]) * seen).abs() / share.clamp(min=1e-3)
            for other in (pairs.source, pairs.second)
        ]
        largest = torch.maximum(largest, torch.minimum(*differences))
    windows = enough.flatten(1).sum(1)
    differs = ((largest > _COLOUR_LEVELS) & enough).flatten(1).any(1)
    tint = (largest * enough).flatten(1).sum(1) / windows.clamp(min=1)
    return ~differs & (tint < _TINT_LEVELS)


def _windows(plane: Tensor) -> Tensor:
    return F.avg_pool2d(plane[:, None], _WINDOW, _WINDOW // 2)[:, 0]
