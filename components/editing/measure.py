"""How well a model edits: held-out images, a part of them taken away, and what comes back beside the truth.

Only the unknown part is compared; the known part is put back, and would flatter everyone. The error of pixels
favours a blur over a guess that may be wrong, so two more figures say whether the image looks like the truth:
a distance in the judge's features, and, on the toy world, whether the image shows exactly what its caption
says. A trivial answer to each edit stands beside.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from components.conditioning.autoencoder import from_pixels, to_pixels
from components.editing.editor import Editor
from components.editing.edits import (
    Edit,
    SuperResolution,
    colorization,
    inpainting,
    stroke_guided,
    super_resolution,
)
from components.errors import InputError
from components.evaluation.bootstrap import Interval, bootstrap
from components.evaluation.reference import caption_of, features_of_images
from components.judge.judge import Judge
from components.randomness import derive_seed, sample_seeds
from components.shards.decode import decode_square
from components.shards.writer import Sample
from components.toyworld.parsing import parse
from components.toyworld.scorer import is_exact

Pixels = npt.NDArray[np.uint8]
FACTOR = 4  # of super-resolution
STROKE_WIDTH, STROKE_COLOURS = 5 / 32, 6  # of the image's side; of the palette
LEVELS = 127.5  # of 255 in one unit of the range [-1, 1]
PROTOCOL = {
    "inpaint": "a square of half the side, anywhere, is missing",
    "colorize": "the luma, in whole levels, is left",
    "upscale": f"the means of patches of {FACTOR}x{FACTOR} pixels, in whole levels, are left",
    "sketch": f"a median filter of {STROKE_WIDTH:.0%} of the side and {STROKE_COLOURS} colours make strokes",
}
BASELINES = {"inpaint": "mean fill", "colorize": "grey", "upscale": "bilinear", "sketch": "the strokes"}


@dataclass(frozen=True)
class HeldOut:
    """Images as the model would see them, with their own long captions, (N, H, W, 3)."""

    images: Pixels
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One way to answer one edit.

    rmse: root of the mean square difference from the truth, over the unknown part, in levels of 255; the mean
    over images. judge_distance: 1 - cosine of the judge's features of both; the mean. exact: the share that
    shows exactly what the caption says, None where no scorer covers the domain.
    """

    edit: str
    method: str
    steps: int | None  # of a model
    rmse: Interval
    judge_distance: Interval
    exact: Interval | None


@dataclass(frozen=True)
class EditMeasurement:
    """The rows of every edit, and how they were measured.

    scored: images whose caption the scorer reads. truth_exact: the share of these that show what it says.
    """

    images: int
    scored: int
    truth_exact: Interval | None
    seed: int
    protocol: Mapping[str, str]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class EditResults:
    """The figures, and what they are of. given, made: by edit, (N, H, W, 3), the starts and the results."""

    measurement: EditMeasurement
    held_out: HeldOut
    given: Mapping[str, Pixels]
    made: Mapping[str, Pixels]


def held_out_images(samples: Sequence[Sample], size: int) -> HeldOut:
    """The records with a long caption. Raises InputError where there are fewer than two."""
    captioned = [sample for sample in samples if caption_of(sample)]
    if len(captioned) < 2:
        raise InputError(f"{len(captioned)} held-out records have a long caption, and two are needed")
    images = np.stack([decode_square(sample.image, size) for sample in captioned])
    return HeldOut(images, tuple(map(caption_of, captioned)))


def make_edits(truth: Pixels, seed: int) -> dict[str, list[Edit]]:
    """Each edit of every image (N, H, W, 3), by the command's name of it."""
    images = list(from_pixels(truth))
    return {
        "inpaint": [inpainting(image, _hole(image, seed, at)) for at, image in enumerate(images)],
        "colorize": [colorization(_whole_levels(colorization(image).start)) for image in images],
        "upscale": [super_resolution(_whole_levels(F.avg_pool2d(image, FACTOR)), FACTOR) for image in images],
        "sketch": [stroke_guided(_strokes(pixels)) for pixels in truth],
    }


def trivial_answer(edit: Edit) -> Tensor:
    """What needs no model, (3, H, W): what the edit starts from, or bilinear interpolation."""
    if isinstance(edit, SuperResolution):
        small = F.avg_pool2d(edit.start, edit.factor)[None]
        return F.interpolate(small, scale_factor=edit.factor, mode="bilinear", align_corners=False)[0]
    return edit.start


def measure(
    editor: Editor,
    judge: Judge,
    held_out: HeldOut,
    *,
    steps: int | None,
    seed: int,
    scored: bool,
    on_images: Callable[[int], object],
) -> EditResults:
    """Do every edit of every image and compare. scored: whether the toy world's scorer covers the images.

    steps: of each edit; its own by default. on_images is called with numbers of images that are done.
    """
    score = _Scores(judge, held_out, seed, scored)
    rows, given, made = [], {}, {}
    for name, edits in make_edits(held_out.images, seed).items():
        trivial = to_pixels(torch.stack([trivial_answer(edit) for edit in edits]))
        rows.append(score.row(name, BASELINES[name], None, edits, trivial))
        count = editor.steps_of(edits, steps)
        batches = []
        for at in range(0, len(edits), editor.batch_size):
            part = slice(at, at + editor.batch_size)
            seeds = sample_seeds(derive_seed(seed, name), len(edits))[part]
            batches.append(editor.edit(edits[part], held_out.captions[part], seeds, steps=count))
            on_images(len(batches[-1]))
        given[name] = to_pixels(torch.stack([edit.start for edit in edits]))
        made[name] = np.concatenate(batches)
        rows.append(score.row(name, "model", count, edits, made[name]))
    measurement = EditMeasurement(
        images=len(held_out.images),
        scored=score.scored,
        truth_exact=score.exact(held_out.images),
        seed=seed,
        protocol=PROTOCOL,
        rows=tuple(rows),
    )
    return EditResults(measurement, held_out, given, made)


class _Scores:
    """Compares answers with the truth; what belongs to the truth alone is computed once."""

    def __init__(self, judge: Judge, held_out: HeldOut, seed: int, scored: bool) -> None:
        self.judge, self.held_out, self.seed = judge, held_out, seed
        self.truth, self.features = from_pixels(held_out.images), features_of_images(judge, held_out.images)
        self.stated = [parse(caption) if scored else None for caption in held_out.captions]

    @property
    def scored(self) -> int:
        return sum(stated is not None for stated in self.stated)

    def row(self, edit: str, method: str, steps: int | None, edits: Sequence[Edit], answer: Pixels) -> Row:
        """The figures of one answer (N, H, W, 3)."""
        differences = from_pixels(answer) - self.truth
        errors = [_rmse(one, difference) for one, difference in zip(edits, differences, strict=True)]
        cosines = np.einsum("nd,nd->n", features_of_images(self.judge, answer), self.features)
        return Row(
            edit,
            method,
            steps,
            rmse=self._interval(errors),
            judge_distance=self._interval((1 - cosines).tolist()),
            exact=self.exact(answer),
        )

    def exact(self, answer: Pixels) -> Interval | None:
        """The share that shows exactly what its caption says, of those whose caption the scorer reads."""
        pairs = zip(answer, self.stated, strict=True)
        verdicts = [float(is_exact(image, stated)) for image, stated in pairs if stated is not None]
        return self._interval(verdicts) if verdicts else None

    def _interval(self, values: Sequence[float]) -> Interval:
        return bootstrap(values, [""] * len(values), self.seed)


def _rmse(edit: Edit, difference: Tensor) -> float:
    """Over the unknown part, in levels."""
    return LEVELS * float((edit.unknown(difference).square().sum() / edit.unknown_numbers).sqrt())


def _hole(image: Tensor, seed: int, at: int) -> Tensor:
    """A square of half the side, anywhere in the image: (H, W), bool."""
    _, height, width = image.shape
    rng = np.random.default_rng(derive_seed(seed, "hole", at))
    top, left = int(rng.integers(height - height // 2 + 1)), int(rng.integers(width - width // 2 + 1))
    hole = torch.zeros(height, width, dtype=torch.bool)
    hole[top : top + height // 2, left : left + width // 2] = True
    return hole


def _strokes(pixels: Pixels) -> Tensor:
    """The image as if painted with a broad brush in few colours, as SDEdit simulates it: (3, H, W)."""
    width = round(STROKE_WIDTH * len(pixels)) // 2 * 2 + 1  # odd
    blurred = Image.fromarray(pixels).filter(ImageFilter.MedianFilter(width))
    painted = blurred.quantize(STROKE_COLOURS, kmeans=1).convert("RGB")
    return from_pixels(np.array(painted)[None])[0]


def _whole_levels(image: Tensor) -> Tensor:
    """As a file of 8 bits has it."""
    return ((image + 1) * LEVELS).round() / LEVELS - 1
