"""Fits the toy world's shapes to coverage maps: which shape, where, how large, how turned, how soft.

Templates are the outlines of outlines.py, blurred. A coarse match in a frame of the thing's own centroid and
area proposes shapes and turns; least squares on the pixels then refine place, size, turn and softness
(Gauss-Newton). detection.py calls it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from components.toyworld.outlines import turned_outline
from components.toyworld.scene import MAX_TURN, SHAPES

Floats = NDArray[np.float64]

# The stack of templates: each shape, in a box of side 1 around the origin, at several blurs.
REACH = 1.0  # half the side of a template
GRID = 112  # samples along it
LEAST_BLUR = 0.012  # standard deviation, as a part of the thing's size
BLUR_RATIO = 1.45  # from one level to the next
BLUR_LEVELS = 8  # up to 0.16

# The frame of the coarse match.
FRAME = 20  # samples along it
FRAME_REACH = 1.05  # half the frame, in units of the square root of the thing's area
TURN_STEP = 4.0  # degrees
COARSE_LEVELS = (1, 3, 5, 7)
CANDIDATES = 2  # shapes that are refined, of each thing
CANDIDATE_WITHIN = 3.0  # and only those whose squared difference is within this multiple of the best one's

ITERATIONS = 2  # of Gauss-Newton
# Steps for the numerical derivatives: x and y (pixels), log size, turn (degrees), blur (levels).
STEPS = np.array([0.05, 0.05, 0.01, 0.5, 0.1])
# How far the pixels have to argue for a change, so that what they do not show (a circle's turn) stays.
STIFFNESS = np.array([0.02, 0.02, 1.0, 1e-3, 0.05, 1.0])
LARGEST_CHANGE = np.array([1.5, 1.5, 0.15, 6.0, 1.5])  # of one iteration, units as in STEPS
MOST_TURN = MAX_TURN + 4.0  # degrees; a model is not exact

# Of coverage.
QUIET = 0.12  # less counts as none in an overlap: noise of the background
NOISE = 0.15  # what a pixel may differ without counting as misfit
NOISE_DEVIATIONS = 3.5  # or so many standard deviations of the image's own noise, where that is more
LEAST_ERROR = 1e-9  # squared; a smaller one counts as this


@dataclass(frozen=True)
class Patch:
    """What is known about one thing: (H, W) arrays around it.

    coverage: 0 background to 1 thing, not clipped. weight: 1 where a pixel is this thing's or its surrounding
    background's, 0 where it is another's. top, left: of the patch in the image, pixels. noise: the standard
    deviation of the coverage where the image is plain.
    """

    coverage: Floats
    weight: Floats
    top: int
    left: int
    noise: float = 0.0


@dataclass(frozen=True)
class Fit:
    """A shape laid over a patch. x, y: the centre of its box in the image, size: its side; pixels.

    turn: degrees clockwise. blur: the standard deviation of its edge, pixels. drawn: the coverage that it
    predicts for the patch, (H, W). overlap: of that with the observed coverage, intersection over union.
    misfit: what differs between them by more than noise, as a part of the thing's area. ambiguity: its
    squared error as a part of the next best shape's, from 0 to 1; 0 where no other shape was near. inside:
    the share of its area that lies in the patch, and so in the image.
    """

    shape: str
    x: float
    y: float
    size: float
    turn: float
    blur: float
    drawn: Floats
    overlap: float
    misfit: float
    ambiguity: float
    inside: float


def fit_shapes(patches: Sequence[Patch]) -> list[Fit]:
    """The best shape for each patch."""
    owners, starts = [], []
    for i, patch in enumerate(patches):
        for start in _propose(patch):
            owners.append(i)
            starts.append(start)
    shapes = np.array([shape for shape, _ in starts])
    poses, amplitudes, drawn = _refine([patches[i] for i in owners], shapes, np.array([p for _, p in starts]))
    candidates: list[list[tuple[float, int]]] = [[] for _ in patches]  # errors, and which of the refined
    for k, i in enumerate(owners):
        patch = patches[i]
        rows, columns = patch.coverage.shape
        left = patch.coverage - amplitudes[k] * drawn[k, :rows, :columns]
        candidates[i].append((float((patch.weight * left**2).sum()), k))
    fits = []
    for patch, found in zip(patches, candidates, strict=True):
        (error, k), *others = sorted(found)
        ambiguity = min((error / max(other, LEAST_ERROR) for other, _ in others), default=0.0)
        fits.append(_fit(patch, SHAPES[shapes[k]], poses[k], amplitudes[k], drawn[k], ambiguity))
    return fits


def _fit(patch: Patch, shape: str, pose: Floats, amplitude: float, drawn: Floats, ambiguity: float) -> Fit:
    x, y, log_size, turn, level = pose.tolist()
    size = math.exp(log_size)
    rows, columns = patch.coverage.shape
    predicted = drawn[:rows, :columns]
    return Fit(
        shape=shape,
        x=patch.left + x,
        y=patch.top + y,
        size=size,
        turn=turn,
        blur=LEAST_BLUR * BLUR_RATIO**level * size,
        drawn=predicted,
        overlap=_overlap(patch, amplitude, predicted),
        misfit=_misfit(patch, amplitude, predicted),
        ambiguity=ambiguity,
        inside=float(predicted.sum()) / (_bank().unit_areas[SHAPES.index(shape)] * size**2),
    )


def _overlap(patch: Patch, amplitude: float, predicted: Floats) -> float:
    observed = (patch.coverage / max(amplitude, 0.1)).clip(0, 1) * patch.weight
    observed = np.where(observed < QUIET, 0, observed)
    expected = np.where(predicted < QUIET, 0, predicted) * patch.weight
    union = float(np.maximum(observed, expected).sum())
    return float(np.minimum(observed, expected).sum()) / union if union else 0.0


def _misfit(patch: Patch, amplitude: float, predicted: Floats) -> float:
    difference = np.abs(patch.coverage / amplitude - predicted) - max(NOISE, NOISE_DEVIATIONS * patch.noise)
    return float((difference.clip(0, None) * patch.weight).sum()) / max(float(predicted.sum()), 1.0)


def _propose(patch: Patch) -> list[tuple[int, Floats]]:
    """Shapes to refine, each with a pose (x, y, log size, turn, blur level) in the patch."""
    bank = _bank()
    observed = patch.coverage.clip(0, 1) * patch.weight
    observed = np.where(observed < QUIET, 0, observed)
    area = max(float(observed.sum()), 1.0)
    x = float(observed.sum(0) @ (np.arange(observed.shape[1]) + 0.5)) / area
    y = float(observed.sum(1) @ (np.arange(observed.shape[0]) + 0.5)) / area
    steps = ((np.arange(FRAME) + 0.5) / FRAME * 2 - 1) * FRAME_REACH * math.sqrt(area)
    grid = np.broadcast_arrays((y - 0.5 + steps)[:, None], (x - 0.5 + steps)[None, :])
    framed = ndimage.map_coordinates(observed, grid, order=1, mode="constant").ravel()
    distances = bank.squares - 2 * bank.patches @ framed + framed @ framed
    found = []
    for shape, (first, last) in enumerate(bank.ranges):
        k = first + int(distances[first:last].argmin())
        size = math.sqrt(area / bank.unit_areas[shape])
        dx, dy = bank.offsets[k] * size
        pose = np.array([x + dx, y + dy, math.log(size), bank.turns[k], bank.levels[k]])
        found.append((float(distances[k]), shape, pose))
    found.sort(key=lambda each: each[0])
    limit = CANDIDATE_WITHIN * found[0][0]
    return [(shape, pose) for distance, shape, pose in found[:CANDIDATES] if distance <= limit]


def _refine(
    patches: Sequence[Patch], shapes: NDArray[np.intp], poses: Floats
) -> tuple[Floats, Floats, Floats]:
    """Gauss-Newton from `poses` (K, 5): the poses, amplitudes (K,), and predicted coverages (K, H, W)."""
    rows = max(patch.coverage.shape[0] for patch in patches)
    columns = max(patch.coverage.shape[1] for patch in patches)
    observed, weight = np.zeros((2, len(patches), rows * columns))
    for k, patch in enumerate(patches):
        h, w = patch.coverage.shape
        observed[k].reshape(rows, columns)[:h, :w] = patch.coverage
        weight[k].reshape(rows, columns)[:h, :w] = patch.weight
    grid = _pixel_centres(rows, columns)
    amplitudes = np.ones(len(patches))
    variations = np.concatenate([np.zeros((1, 5)), np.diag(STEPS)])  # (6, 5)
    for _ in range(ITERATIONS):
        samples = _sample(shapes, poses[:, None] + variations, grid)  # (K, 6, P)
        base = samples[:, 0]
        slopes = (samples[:, 1:] - base[:, None]) / STEPS[:, None] * amplitudes[:, None, None]
        jacobian = np.concatenate([slopes, base[:, None]], axis=1)  # (K, 6, P)
        weighted = jacobian * weight[:, None]
        normal = weighted @ jacobian.transpose(0, 2, 1) + np.diag(STIFFNESS)
        error = observed - amplitudes[:, None] * base
        change = np.linalg.solve(normal, (weighted @ error[..., None]))[..., 0]
        poses = poses + change[:, :5].clip(-LARGEST_CHANGE, LARGEST_CHANGE)
        poses[:, 3] = poses[:, 3].clip(-MOST_TURN, MOST_TURN)
        poses[:, 4] = poses[:, 4].clip(0, BLUR_LEVELS - 1)
        amplitudes = (amplitudes + change[:, 5]).clip(0.5, 1.5)
    drawn = _sample(shapes, poses[:, None], grid)[:, 0].reshape(len(patches), rows, columns)
    return poses, amplitudes, drawn


def _sample(shapes: NDArray[np.intp], poses: Floats, grid: Floats) -> Floats:
    """Templates (K,) in V poses each, (K, V, 5), at pixels (2, P) (x, y) of their patches: (K, V, P)."""
    x, y, log_size, turn, level = (poses[..., i, None] for i in range(5))
    angle = np.radians(turn)
    scale = np.exp(-log_size) * (GRID / (2 * REACH))
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    dx, dy = grid[0] - x, grid[1] - y
    middle = GRID / 2 - 0.5
    across = cosine * dx + sine * dy + middle
    down = cosine * dy - sine * dx + middle
    layer = np.broadcast_to(
        level.clip(0, BLUR_LEVELS - 1) + (shapes * BLUR_LEVELS)[:, None, None], across.shape
    )
    found = ndimage.map_coordinates(
        _stack(), [layer.ravel(), down.ravel(), across.ravel()], order=1, mode="nearest"
    )
    return np.asarray(found, np.float64).reshape(across.shape)


def _pixel_centres(rows: int, columns: int) -> Floats:
    ys, xs = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, indexing="ij")
    return np.stack([xs.ravel(), ys.ravel()])


@cache
def _stack() -> NDArray[np.float32]:
    """Every shape at every blur, (S * BLUR_LEVELS, GRID, GRID)."""
    fine = 4
    stack = np.zeros((len(SHAPES) * BLUR_LEVELS, GRID, GRID), np.float32)
    for i, shape in enumerate(SHAPES):
        canvas = Image.new("L", (GRID * fine, GRID * fine))
        corners = (turned_outline(shape, 0.0) / (2 * REACH) + 0.5) * GRID * fine - 0.5
        ImageDraw.Draw(canvas).polygon(corners.ravel().tolist(), fill=255)
        sharp = np.asarray(canvas.reduce(fine), np.float64) / 255
        for level in range(BLUR_LEVELS):
            deviation = LEAST_BLUR * BLUR_RATIO**level * GRID / (2 * REACH)
            stack[i * BLUR_LEVELS + level] = ndimage.gaussian_filter(sharp, deviation)
    return stack


@dataclass(frozen=True)
class _Bank:
    """Framed templates (T, FRAME * FRAME) in order of shapes, and the pose that each was made with."""

    patches: Floats
    squares: Floats  # (T,): sum of squares of each
    ranges: tuple[tuple[int, int], ...]  # of each shape
    turns: Floats  # (T,), degrees
    levels: Floats  # (T,)
    unit_areas: Floats  # (S,): area of each shape in a box of side 1
    offsets: Floats  # (T, 2): from the centroid to the box's centre, in units of its side


@cache
def _bank() -> _Bank:
    steps = int(MOST_TURN // TURN_STEP)
    every_turn = [TURN_STEP * i for i in range(-steps, steps + 1)]
    cell = (2 * REACH / GRID) ** 2
    places = (np.arange(GRID) + 0.5) / GRID * 2 * REACH - REACH
    frame = ((np.arange(FRAME) + 0.5) / FRAME * 2 - 1) * FRAME_REACH
    patches: list[Floats] = []
    ranges: list[tuple[int, int]] = []
    turns, levels, offsets, areas = [], [], [], []
    for i, shape in enumerate(SHAPES):
        sharp = _stack()[i * BLUR_LEVELS].astype(np.float64)
        area = float(sharp.sum()) * cell
        centroid = np.array([sharp.sum(0) @ places, sharp.sum(1) @ places]) * cell / area
        areas.append(area)
        first = len(patches)
        for turn in every_turn if shape != "circle" else [0.0]:
            angle = math.radians(turn)
            rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
            offset = -centroid @ rotation
            ys, xs = np.meshgrid(frame, frame, indexing="ij")
            grid = np.stack([xs.ravel(), ys.ravel()]) * math.sqrt(area)
            for level in COARSE_LEVELS:
                pose = np.array([[[*offset, 0.0, turn, level]]])
                patches.append(_sample(np.array([i]), pose, grid)[0, 0])
                turns.append(turn)
                levels.append(float(level))
                offsets.append(offset)
        ranges.append((first, len(patches)))
    stacked = np.array(patches)
    return _Bank(
        stacked,
        (stacked**2).sum(1),
        tuple(ranges),
        np.array(turns),
        np.array(levels),
        np.array(areas),
        np.array(offsets),
    )
