"""The labelled set: images with a true short and a true long caption, from which the annotators are fitted.

The judge (judge/fit.py) and the captioner (captioning/fit.py) learn from the same records, in orders that are
drawn here, and are measured on the same few that neither has seen.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from components.corpus.images import ImageRejected, ImageRules, open_image
from components.corpus.locations import location, reading_errors
from components.corpus.schemas import LABELLED, Reason, check_schema, record_key
from components.errors import InputError, one_line
from components.randomness import derive_seed

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# A labelled set was curated: only what cannot be opened is rejected.
RULES = ImageRules(min_side=1, max_aspect=1e6, min_deviation=0.0)
TOY_SCENE = "toy_scene"  # a column that a toy web's labelled set has beside LABELLED's: the ground truth
READ_ROWS = 256  # rows of the Parquet file that are in memory at a time


@dataclass(frozen=True)
class LabelledImage:
    """One record: the encoded image and what is true of it, in brief and in detail.

    scene: what the image shows as the toy world's JSON, where the set is the toy world's.
    """

    image: bytes
    caption_short: str
    caption_long: str
    scene: str | None = None

    def open(self) -> Image.Image:
        """The image, RGB, what is transparent on white."""
        return open_image(self.image, RULES)

    @property
    def captions(self) -> tuple[str, str]:
        return self.caption_short, self.caption_long


@dataclass(frozen=True)
class LabelledSet:
    """train: to learn from. held_out: to measure with. skipped: records that could not be used, by reason."""

    train: tuple[LabelledImage, ...]
    held_out: tuple[LabelledImage, ...]
    skipped: dict[str, int]

    @property
    def records(self) -> int:
        return len(self.train) + len(self.held_out) + sum(self.skipped.values())


def read_labelled(path: str, holdout_fraction: float) -> LabelledSet:
    """The set in the Parquet file at a path or URL (LABELLED schema). A bad record is skipped and counted.

    holdout_fraction: share kept from training, chosen by content, so that a copy of an image is on one side.
    Raises InputError naming the column if the schema differs, or when no record can be used.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = f"labelled set {path}"
    try:
        with location(path).open("rb") as source:
            return _split(pq.ParquetFile(source), name, holdout_fraction)
    except reading_errors(pa.ArrowInvalid) as error:
        raise InputError(f"{name}: not a readable Parquet file ({one_line(error, 160)})") from error


def _split(file: "pq.ParquetFile", name: str, holdout_fraction: float) -> LabelledSet:
    check_schema(file.schema_arrow, LABELLED, name, extra=True)
    sides: tuple[list[LabelledImage], list[LabelledImage]] = ([], [])
    skipped: Counter[str] = Counter()
    columns = [name for name in (*LABELLED.names, TOY_SCENE) if name in file.schema_arrow.names]
    for batch in file.iter_batches(batch_size=READ_ROWS, columns=columns):
        for row in batch.to_pylist():
            usable = _usable(row["image"], row["caption_short"], row["caption_long"], row.get(TOY_SCENE))
            if isinstance(usable, Reason):
                skipped[usable.value] += 1
            else:
                sides[_is_held_out(usable, holdout_fraction)].append(usable)
    train, held_out = sides
    if not train:
        raise InputError(f"{name}: no record can be used ({dict(skipped)}); give another file")
    return LabelledSet(tuple(train), tuple(held_out), dict(sorted(skipped.items())))


def draw_batches(count: int, batch_size: int, images_seen: int, *, seed: int) -> Iterator[list[int]]:
    """Batches of row numbers below `count`, for ever, from the batch at `images_seen` on.

    Every epoch is a fresh order; the order is a pure function of (seed, epoch), so a resumed run goes on with
    the batches it would have seen.
    """
    row_at = _RowOrder(count, seed)
    for batch in itertools.count(images_seen // batch_size):
        yield [row_at(n) for n in range(batch * batch_size, (batch + 1) * batch_size)]


class _RowOrder:
    """The endless sequence of row numbers: one permutation after the other."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.epoch, self.order = -1, list[int]()

    def __call__(self, n: int) -> int:
        """The row number of sample `n` of the run."""
        epoch, place = divmod(n, self.count)
        if epoch != self.epoch:
            rng = np.random.default_rng(derive_seed(self.seed, "epoch", epoch))
            self.epoch, self.order = epoch, rng.permutation(self.count).tolist()
        return self.order[place]


def _usable(
    image: bytes | None, short: str | None, long: str | None, scene: str | None
) -> LabelledImage | Reason:
    """The record, or why it cannot be used."""
    short, long = (" ".join((text or "").split()) for text in (short, long))
    if not short or not long:
        return Reason.CAPTION_EMPTY
    try:
        open_image(image, RULES)
    except ImageRejected as error:
        return error.rejection.reason
    return LabelledImage(image or b"", short, long, scene)


def _is_held_out(record: LabelledImage, fraction: float) -> bool:
    return int(record_key(record.image, "")[:8], 16) < fraction * 2**32
