"""Prompt following on the toy world, read from the pixels: what an image shows, and if that fits the prompt.

Colours by unmixing each pixel against the background, things by connected components, shapes by overlap with
templates. No model is involved, so a score cannot drift; `score_true_renders` verifies it on images whose
content is known.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from components.errors import InputError
from components.randomness import derive_seed
from components.toyworld.captions import holds
from components.toyworld.prompts import CATEGORIES, ToyPrompt, make_prompts, scene_for
from components.toyworld.render import render
from components.toyworld.scene import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing

Floats = NDArray[np.float32]

SOLID = 70.0  # a pixel this near (RGB distance) to a colour counts as that colour
LEAST_SOLID = 0.005  # of the image's pixels: below this a colour is not in the image
LEAST_AREA = 0.013  # of the image: half of the smallest thing rendered; anything less is a speck
LEAST_OVERLAP = 0.70  # with the best template: below this a thing has no shape
FRAME = 24  # side of the frame in which shapes are compared
FRAME_REACH = 1.05  # half the frame, in units of the square root of the thing's area
TEMPLATE_PIXELS = (7.0, 9.0, 12.0, 16.0, 24.0)  # sizes in pixels at which templates are taken


@dataclass(frozen=True)
class DetectedThing:
    """A thing in an image; fractions of the side as in Thing. `shape` is None where no template fits."""

    shape: str | None
    colour: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Detection:
    """What is in an image; the things in reading order."""

    background: str
    things: tuple[DetectedThing, ...]


def score_prompts(images: Sequence[NDArray[np.uint8]], prompts: Sequence[ToyPrompt]) -> dict[str, float]:
    """Each category's share of correct images; `images[i]`, (H, W, 3), is for `prompts[i]`.

    Raises InputError where there is not one image for each prompt.
    """
    if len(images) != len(prompts):
        raise InputError(f"{len(images)} images for {len(prompts)} prompts; give one image per prompt")
    return accuracy_by_category(
        (prompt.category, is_correct(image, prompt)) for image, prompt in zip(images, prompts, strict=True)
    )


def accuracy_by_category(verdicts: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """(category, correct) of every image -> the share of correct ones, in the order of CATEGORIES."""
    by_category: dict[str, list[bool]] = {}
    for category, correct in verdicts:
        by_category.setdefault(category, []).append(correct)
    return {
        name: sum(by_category[name]) / len(by_category[name]) for name in CATEGORIES if name in by_category
    }


def score_true_renders(per_category: int, size: int, seed: int) -> dict[str, float]:
    """The scorer's own accuracy: its scores on true renders of prompts, 1.0 where it makes no mistake."""
    prompts = make_prompts(per_category, seed)
    images = []
    for i, prompt in enumerate(prompts):
        rng = np.random.default_rng(derive_seed(seed, "true render", i))
        images.append(np.asarray(render(scene_for(prompt, rng), size)))
    return score_prompts(images, prompts)


def is_correct(image: NDArray[np.uint8], prompt: ToyPrompt) -> bool:
    """Whether the image shows what its prompt's category requires (GenEval's rules; Ghosh 2023, §3)."""
    things = detect(image).things
    by_shape = [[thing for thing in things if thing.shape == shape] for _, shape in prompt.looks]
    match prompt.category:
        case "single_object":
            return len(things) == 1 and len(by_shape[0]) == 1
        case "two_object":
            return all(by_shape)
        case "counting":
            return len(by_shape[0]) == prompt.count
        case "colors":
            return any(thing.colour == prompt.looks[0][0] for thing in things)
        case "position":
            relation = prompt.relation or ""
            return any(holds(relation, _placed(a), _placed(b)) for a in by_shape[0] for b in by_shape[1])
        case "color_attr":
            return all(
                any(thing.colour == colour for thing in matching)
                for (colour, _), matching in zip(prompt.looks, by_shape, strict=True)
            )
    raise InputError(f"prompt category '{prompt.category}' is unknown; use one of {', '.join(CATEGORIES)}")


def detect(image: NDArray[np.uint8]) -> Detection:
    """Background and things of an (H, W, 3) image of the toy world, at 24 pixels or more."""
    pixels = np.asarray(image, np.float32)
    background, level = _background(pixels)
    present = _colours_present(pixels, level)
    things: list[DetectedThing] = []
    if present:
        nearest, coverage = _unmix(pixels, level, present)
        for index, colour in enumerate(present):
            things += _things(np.where(nearest == index, coverage, 0), colour)
    return Detection(background, tuple(sorted(things, key=lambda thing: (thing.y, thing.x))))


def _background(pixels: Floats) -> tuple[str, Floats]:
    """Its name, and the colour it really has in this image: (3,)."""
    flat = pixels.reshape(-1, 3)
    names, palette = list(BACKGROUNDS), np.array(list(BACKGROUNDS.values()), np.float32)
    distances = _distances(flat, palette)
    near = distances < SOLID**2
    best = int(near.sum(0).argmax()) if near.any() else int(distances.mean(0).argmin())
    close = near[:, best]
    return names[best], np.median(flat[close], axis=0) if close.any() else palette[best]


def _colours_present(pixels: Floats, level: Floats) -> list[str]:
    """Colours with enough solid pixels. One too many is harmless: unmixing gives it no pixels."""
    names = list(COLOURS)
    palette = np.array([*COLOURS.values(), level], np.float32)
    distances = _distances(pixels.reshape(-1, 3), palette)
    nearest = distances.argmin(1)
    solid = nearest[distances[np.arange(len(nearest)), nearest] < SOLID**2]
    counts = np.bincount(solid, minlength=len(palette))
    least = max(3.0, LEAST_SOLID * len(nearest))
    return [name for name, count in zip(names, counts, strict=False) if count >= least]


def _unmix(pixels: Floats, level: Floats, colours: list[str]) -> tuple[NDArray[np.intp], Floats]:
    """For each pixel the colour whose line from the background it lies nearest, and how far along: 0..1."""
    flat = pixels.reshape(-1, 3) - level
    lines = np.array([COLOURS[name] for name in colours], np.float32) - level  # (K, 3)
    along = flat @ lines.T / (lines**2).sum(1)  # (P, K)
    covered = along.clip(0, 1)
    residual = (
        (flat**2).sum(1, keepdims=True) - 2 * covered * (flat @ lines.T) + covered**2 * (lines**2).sum(1)
    )
    nearest = residual.argmin(1)
    coverage = covered[np.arange(len(nearest)), nearest]
    shape = pixels.shape[:2]
    return nearest.reshape(shape), coverage.reshape(shape)


def _things(coverage: Floats, colour: str) -> list[DetectedThing]:
    """The things in one colour's coverage map (H, W)."""
    side = coverage.shape[0]
    labels, count = ndimage.label(coverage > 0.5)
    things = []
    for index, box in enumerate(ndimage.find_objects(labels, count), start=1):
        rows, columns = (slice(max(part.start - 1, 0), part.stop + 1) for part in box)
        component = labels[rows, columns] == index
        # One pixel around the component is its antialiased edge.
        edge = ndimage.binary_dilation(component, np.ones((3, 3)))
        weights = np.where(edge & (coverage[rows, columns] > 0.15), coverage[rows, columns], 0)
        area = float(weights.sum())
        if area < LEAST_AREA * coverage.size:
            continue
        shape, size, (x, y) = _shape(weights, area)
        things.append(
            DetectedThing(shape, colour, (columns.start + x) / side, (rows.start + y) / side, size / side)
        )
    return things


def _shape(weights: Floats, area: float) -> tuple[str | None, float, tuple[float, float]]:
    """The best template's shape, and by it the side and the centre (x, y) of the box in pixels."""
    patch, (x, y) = _framed(weights, area)
    bank = _templates()
    level = int(np.abs(np.log(bank.roots / np.sqrt(area))).argmin())
    templates = bank.patches[level]  # (S, FRAME, FRAME)
    overlap = np.minimum(templates, patch).sum((1, 2)) / np.maximum(templates, patch).sum((1, 2))
    best = int(overlap.argmax())
    size = float(np.sqrt(area / bank.unit_areas[best]))
    dx, dy = bank.offsets[best]
    centre = (x + dx * size, y + dy * size)
    return (SHAPES[best] if overlap[best] >= LEAST_OVERLAP else None), size, centre


def _framed(weights: Floats, area: float) -> tuple[Floats, tuple[float, float]]:
    """The thing moved to its centroid and scaled to unit area, (FRAME, FRAME); and the centroid in pixels."""
    ys, xs = np.arange(weights.shape[0]), np.arange(weights.shape[1])
    y = float(weights.sum(1) @ ys) / area
    x = float(weights.sum(0) @ xs) / area
    steps = (np.arange(FRAME) + 0.5) / FRAME * 2 - 1
    reach = steps * FRAME_REACH * np.sqrt(area)
    grid = np.meshgrid(y + reach, x + reach, indexing="ij")
    patch = ndimage.map_coordinates(weights, grid, order=1, mode="constant")
    return patch, (x + 0.5, y + 0.5)


@dataclass(frozen=True)
class _Bank:
    """Templates by size: patches (L, S, FRAME, FRAME) of things whose areas have the square roots `roots`."""

    roots: Floats  # (L,), pixels
    patches: Floats
    unit_areas: Floats  # (S,): area of each shape in a box of side 1
    offsets: Floats  # (S, 2): from the centroid to the box's centre, in units of its side


@cache
def _templates() -> _Bank:
    """Mean framed renders of each shape over sub-pixel shifts, at several sizes: fewer pixels, more blur."""
    patches = np.zeros((len(TEMPLATE_PIXELS), len(SHAPES), FRAME, FRAME), np.float32)
    roots = np.zeros((len(TEMPLATE_PIXELS), len(SHAPES)), np.float32)
    unit_areas, offsets = np.zeros(len(SHAPES), np.float32), np.zeros((len(SHAPES), 2), np.float32)
    shifts = [(dx / 4, dy / 4) for dx in range(4) for dy in range(4)]
    for i, pixels in enumerate(TEMPLATE_PIXELS):
        side = int(pixels * 2)
        for j, shape in enumerate(SHAPES):
            for dx, dy in shifts:
                thing = Thing(shape, "yellow", 0.5 + dx / side, 0.5 + dy / side, pixels / side)
                canvas = np.asarray(render(Scene("black", (thing,)), side), np.float32)
                weights = ((canvas[..., 0] - 10) / 245).clip(0, 1)
                area = float(weights.sum())
                patch, (x, y) = _framed(weights, area)
                patches[i, j] += patch / len(shifts)
                roots[i, j] = np.sqrt(area)
            unit_areas[j] = area / pixels**2
            offsets[j] = ((thing.x * side - x) / pixels, (thing.y * side - y) / pixels)
    return _Bank(roots.mean(1), patches, unit_areas, offsets)


def _distances(flat: Floats, palette: Floats) -> Floats:
    """Squared distances (P, K) of pixels (P, 3) to colours (K, 3)."""
    return (flat**2).sum(1, keepdims=True) - 2 * flat @ palette.T + (palette**2).sum(1)


def _placed(thing: DetectedThing) -> Thing:
    return Thing(thing.shape or "", thing.colour, thing.x, thing.y, thing.size)
