"""What an image of the toy world shows, read from its pixels, and whether anything else is in it.

Colours by unmixing each pixel against the background, things by connected components, shapes by fitting
(shape_fit.py). What was detected is then drawn again: an image is clean where nothing differs from that by
more than noise, soft edges or slight ringing. No model is involved, so a score cannot drift.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from components.errors import InputError
from components.toyworld.scene import BACKGROUNDS, COLOURS, Rgb
from components.toyworld.shape_fit import Fit, Floats, Patch, fit_shapes

LEAST_SIDE = 24  # pixels: of a smaller image nothing can be said
WORKING_SIDE = 32  # larger images are reduced by a whole factor, to this side at least

# Distances between colours are Euclidean, in levels of RGB.
SOLID = 62.0  # a pixel this near to a colour counts as that colour
LEAST_SOLID = 0.004  # of the image's pixels: below this a colour is not in the image
LEAST_AREA = 0.013  # of the image: half of the smallest thing of the world; anything less is a speck
SURROUNDINGS = 3.0  # pixels around a thing that its fit looks at
NORMAL_DEVIATION = 1.4826  # of a normal distribution, by its median absolute deviation
NAMED_OVERLAP = 0.70  # with the fitted shape, intersection over union: below it a thing has no shape

# What is clean.
# Read by eye, of a model's images: a thing within both of these is the shape that it is named. True renders
# stay below .004 and .13; a pentagon of a third of the side has .032 and .39 as a circle.
MOST_MISFIT = 0.027  # what the fit leaves of a thing, as a part of its area
MOST_AMBIGUITY = 0.5  # the fit's squared error, as a part of the next best shape's
LEAST_MISFIT = 0.01  # with less than this a fit is as good as it can be: blurred small things fit two shapes
MOST_BLUR = 0.045  # of the side: the standard deviation of a thing's edge
LEAST_SIZE = 0.2  # of the side; the world's smallest thing has 0.26
TRUE_TO_NAME = 46.0  # a paint is at most this far from the mean of its name: half-way between the nearest two
FLAT_TOLERANCE = 40.0  # what a pixel may differ from what is drawn: noise, ringing
EDGE_TOLERANCE = 0.25  # more at an edge, as a part of its contrast: pixels by which it may be misplaced
LEAST_BLOB = 110.0  # the sum of what is beyond the tolerances in 3 x 3 pixels
MOST_NOISE = 13.0  # root mean square of a channel's difference away from edges
BLOCK = 8  # pixels: the side of the blocks in which the background must be plain
PLAIN_TOLERANCE = 20.0  # a block's mean from the background
MOST_OUTSIDE = 0.03  # of a thing's area, beyond the image's border


@dataclass(frozen=True)
class DetectedThing:
    """A thing in an image; x, y (centre of its box) and size are fractions of the side, as in Thing.

    `shape` is None where no shape fits. rgb: the colour that it really has. turn: degrees clockwise.
    """

    shape: str | None
    colour: str
    x: float
    y: float
    size: float
    turn: float
    rgb: Rgb


@dataclass(frozen=True)
class Detection:
    """What is in an image; the things in reading order.

    background_rgb: the colour that it really has. clean: whether the image is a plain background of a known
    colour with these things, whole, each of a known shape and colour, and shows nothing else.
    """

    background: str
    background_rgb: Rgb
    things: tuple[DetectedThing, ...]
    clean: bool


def detect(image: NDArray[np.uint8]) -> Detection:
    """Background and things of an (H, W, 3) image, LEAST_SIDE pixels or more. Raises InputError otherwise."""
    pixels, side = _working_pixels(image)
    name, level = _background(pixels)
    labels, colours = _components(pixels, level)
    if not colours:
        clean = _is_true_to(BACKGROUNDS[name], level) and _is_explained(
            pixels, np.broadcast_to(level, pixels.shape), np.zeros(pixels.shape[:2])
        )
        return Detection(name, _rgb(level), (), clean)
    owners = _owners(labels)
    noise = _noise(pixels, level, owners)
    patches = [
        _patch(pixels, level, owners, i, box, COLOURS[colours[i - 1]], noise)
        for i, box in enumerate(ndimage.find_objects(owners), start=1)
    ]
    fits = fit_shapes(patches)
    drawn, paints, edges = _draw(pixels, level, patches, fits)
    names = [_nearest_colour(paint) for paint in paints]
    things = [_thing(*each, side) for each in zip(fits, paints, names, strict=True)]
    clean = (
        _is_true_to(BACKGROUNDS[name], level)
        and all(_is_true_to(COLOURS[colour], paint) for colour, paint in zip(names, paints, strict=True))
        and all(_is_whole(fit, side) for fit in fits)
        and _is_explained(pixels, drawn, edges)
    )
    in_order = tuple(sorted(things, key=lambda thing: (thing.y, thing.x)))
    return Detection(name, _rgb(level), in_order, clean)


def _thing(fit: Fit, paint: Floats, colour: str, side: float) -> DetectedThing:
    return DetectedThing(
        shape=fit.shape if fit.overlap >= NAMED_OVERLAP else None,
        colour=colour,
        x=fit.x / side,
        y=fit.y / side,
        size=fit.size / side,
        turn=fit.turn,
        rgb=_rgb(paint),
    )


def _is_whole(fit: Fit, side: float) -> bool:
    """Whether the thing is one shape of the world and no other: complete, not cut off, sharp, no speck."""
    return (
        fit.overlap >= NAMED_OVERLAP
        and fit.misfit <= MOST_MISFIT
        and (fit.ambiguity <= MOST_AMBIGUITY or fit.misfit <= LEAST_MISFIT)
        and fit.inside >= 1 - MOST_OUTSIDE
        and fit.blur <= MOST_BLUR * side
        and fit.size >= LEAST_SIZE * side
    )


def _working_pixels(image: NDArray[np.uint8]) -> tuple[Floats, float]:
    """The image at a working size (h, w, 3), and the side in its pixels of the whole image's height."""
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < LEAST_SIDE:
        raise InputError(
            f"an image of shape {image.shape} cannot be scored; give (height, width, 3), "
            f"{LEAST_SIDE} pixels or more"
        )
    factor = max(1, min(image.shape[:2]) // WORKING_SIDE)
    if factor == 1:
        return np.asarray(image, np.float64), float(image.shape[0])
    reduced = Image.fromarray(np.ascontiguousarray(image, np.uint8)).reduce(factor)
    return np.asarray(reduced, np.float64), image.shape[0] / factor


def _background(pixels: Floats) -> tuple[str, Floats]:
    """Its name, and the colour it really has in this image: (3,)."""
    flat = pixels.reshape(-1, 3)
    names, palette = list(BACKGROUNDS), np.array(list(BACKGROUNDS.values()), np.float64)
    distances = _distances(flat, palette)
    near = distances < SOLID**2
    best = int(near.sum(0).argmax()) if near.any() else int(distances.mean(0).argmin())
    close = near[:, best]
    return names[best], np.median(flat[close], axis=0) if close.any() else palette[best]


def _components(pixels: Floats, level: Floats) -> tuple[NDArray[np.intp], list[str]]:
    """Connected pixels of one colour: labels (h, w), 0 for none, and the colour of each label from 1."""
    present = _colours_present(pixels, level)
    result = np.zeros(pixels.shape[:2], np.intp)
    colours: list[str] = []
    if not present:
        return result, colours
    nearest, coverage = _unmix(pixels, level, present)
    for index, colour in enumerate(present):
        labels, count = ndimage.label((nearest == index) & (coverage > 0.5))
        areas = np.bincount(labels.ravel(), minlength=count + 1)
        for label in range(1, count + 1):
            if areas[label] >= LEAST_AREA * coverage.size:
                colours.append(colour)
                result[labels == label] = len(colours)
    return result, colours


def _colours_present(pixels: Floats, level: Floats) -> dict[str, Floats]:
    """Colours with enough solid pixels, and those pixels' median."""
    flat = pixels.reshape(-1, 3)
    palette = np.array([*COLOURS.values(), level], np.float64)
    distances = _distances(flat, palette)
    nearest = distances.argmin(1)
    nearest[distances[np.arange(len(nearest)), nearest] >= SOLID**2] = len(palette)
    counts = np.bincount(nearest, minlength=len(palette))
    least = max(3.0, LEAST_SOLID * len(nearest))
    return {
        name: np.median(flat[nearest == i], axis=0) for i, name in enumerate(COLOURS) if counts[i] >= least
    }


def _unmix(pixels: Floats, level: Floats, colours: dict[str, Floats]) -> tuple[NDArray[np.intp], Floats]:
    """For each pixel the colour whose line from the background it lies nearest, and how far along: 0..1."""
    flat = pixels.reshape(-1, 3) - level
    lines = np.array(list(colours.values())) - level  # (K, 3)
    products, squares = flat @ lines.T, (lines**2).sum(1)  # (P, K), (K,)
    covered = (products / squares).clip(0, 1)
    residual = covered * (covered * squares - 2 * products)  # and the same |flat|^2 for every colour
    nearest = residual.argmin(1)
    coverage = covered[np.arange(len(nearest)), nearest]
    shape = pixels.shape[:2]
    return nearest.reshape(shape), coverage.reshape(shape)


def _owners(labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """The nearest component of each pixel within SURROUNDINGS of one, else 0: (h, w)."""
    distances, (rows, columns) = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    return np.where(distances <= SURROUNDINGS, labels[rows, columns], 0)


def _noise(pixels: Floats, level: Floats, owners: NDArray[np.intp]) -> float:
    """The standard deviation of a channel where only background is, robust against whatever else is there."""
    plain = owners == 0
    return NORMAL_DEVIATION * float(np.median(np.abs(pixels[plain] - level))) if plain.any() else 0.0


def _patch(
    pixels: Floats,
    level: Floats,
    owners: NDArray[np.intp],
    label: int,
    box: tuple[slice, slice],
    paint: Rgb,
    noise: float,
) -> Patch:
    """The pixels in the box around the component `label`, unmixed with its paint."""
    line = np.array(paint, np.float64) - level
    squared = float(line @ line)
    coverage = (pixels[box] - level) @ line / squared
    weight = (owners[box] == label).astype(np.float64)
    return Patch(coverage, weight, box[0].start, box[1].start, noise / math.sqrt(squared))


def _draw(
    pixels: Floats, level: Floats, patches: Sequence[Patch], fits: Sequence[Fit]
) -> tuple[Floats, list[Floats], Floats]:
    """The things drawn again on the plain background (h, w, 3), their paints, and the edges.

    edges: (h, w), what a shift by a pixel would change, a distance between colours.
    """
    drawn = np.zeros(pixels.shape)
    contrast = np.zeros(pixels.shape[:2])
    paints = []
    for patch, fit in zip(patches, fits, strict=True):
        height, width = fit.drawn.shape
        box = slice(patch.top, patch.top + height), slice(patch.left, patch.left + width)
        share = fit.drawn * patch.weight
        difference = np.tensordot(share, pixels[box] - level, 2) / max(float((share * fit.drawn).sum()), 1e-6)
        paints.append(level + difference)
        drawn[box] += fit.drawn[..., None] * difference
        contrast[box] += fit.drawn * float(np.linalg.norm(difference))
    edges = ndimage.maximum_filter(contrast, 3) - ndimage.minimum_filter(contrast, 3)
    return drawn + level, paints, edges


def _is_explained(pixels: Floats, drawn: Floats, edges: Floats) -> bool:
    """Whether the image differs from what is drawn by no more than the tolerances."""
    difference = pixels - drawn
    squares = (difference**2).sum(-1)
    excess = (np.sqrt(squares) - FLAT_TOLERANCE - EDGE_TOLERANCE * edges).clip(0, None)
    if float(ndimage.uniform_filter(excess, 3, mode="constant").max()) * 9 > LEAST_BLOB:
        return False
    flat = edges < FLAT_TOLERANCE
    if not flat.any() or float(squares[flat].mean()) > 3 * MOST_NOISE**2:
        return False
    return _is_plain(difference, flat)


def _is_plain(difference: Floats, flat: NDArray[np.bool_]) -> bool:
    """Whether no block's mean differs by more than PLAIN_TOLERANCE, over its flat pixels."""
    height, width = flat.shape
    rows, columns = np.arange(0, height, BLOCK), np.arange(0, width, BLOCK)
    masked = np.concatenate([difference * flat[..., None], flat[..., None]], axis=-1)
    sums = np.add.reduceat(np.add.reduceat(masked, rows, 0), columns, 1)
    counts = sums[..., 3]
    enough = counts >= BLOCK * BLOCK / 4
    means = sums[enough, :3] / counts[enough, None]
    return not len(means) or float((means**2).sum(-1).max()) <= PLAIN_TOLERANCE**2


def _is_true_to(mean: Rgb, paint: Floats) -> bool:
    return math.dist(paint.tolist(), mean) <= TRUE_TO_NAME


def _nearest_colour(paint: Floats) -> str:
    levels = paint.tolist()
    return min(COLOURS, key=lambda name: math.dist(levels, COLOURS[name]))


def _distances(flat: Floats, palette: Floats) -> Floats:
    """Squared distances (P, K) of pixels (P, 3) to colours (K, 3)."""
    return np.asarray((flat**2).sum(1, keepdims=True) - 2 * flat @ palette.T + (palette**2).sum(1))


def _rgb(levels: Floats) -> Rgb:
    red, green, blue = levels.round().clip(0, 255).astype(int).tolist()
    return red, green, blue
