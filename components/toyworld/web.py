"""The toy web: a small crawl with ground truth, and a labelled set beside it; both a function of the seed.

The web has what webs have: good alt texts, vague ones, junk; broken, tiny and duplicate images. The truth
about each record is stored apart, for tests and for the evaluation; no stage reads it. A run whose corpus is
`toy:N` has it for its corpus.
"""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.corpus.labelled import TOY_SCENE
from components.corpus.schemas import CORPUS, LABELLED
from components.durable import write_file
from components.randomness import derive_seed
from components.toyworld import web_images as images
from components.toyworld import web_texts as texts
from components.toyworld.captions import caption_long, caption_short
from components.toyworld.layout import draw_scene
from components.toyworld.scene import Scene

ROWS_PER_FILE = 500
WORTH_A_PROCESS = 800  # images: from twice as many on a second process is worth its start
MOST_PROCESSES = 8  # of 150 MB each

# What a record is, and how often. Everything from "filename" on is junk, and its name is the junk's reason.
GOOD_KINDS: dict[str, float] = {"good": 0.407, "partial": 0.20, "vague": 0.08, "colourless": 0.003}
JUNK_KINDS: dict[str, float] = {
    "filename": 0.024, "url": 0.016, "digits": 0.02, "boilerplate": 0.026, "spam": 0.026, "markup": 0.016,
    "language": 0.024, "empty": 0.013, "null": 0.016, "mismatch": 0.024,
    "broken": 0.026, "tiny": 0.014, "blank": 0.007, "banner": 0.004,
    "duplicate": 0.028, "reencoded": 0.026,
}  # fmt: skip
COPIES = ("duplicate", "reencoded")
ROWS_PER_GROUP = 512  # of the Parquet files; workers of the filter share a file by its row groups
ORIGINAL_KINDS = ("good", "partial", "vague")  # what gets copied
ORIGINALS_KEPT = 2000  # records; a copy is never further from its original
LABELLED_SHARE = 4  # one scene in so many is the labelled set's: it never shows a scene of the web

Row = dict[str, object]
T = TypeVar("T")

# The labelled set and, as JSON, the scene of each image: nothing is fitted on it, captions are judged by it.
LABELLED_TRUTH = pa.schema([*LABELLED, (TOY_SCENE, pa.string())])
TRUTH = pa.schema(
    [
        ("url", pa.string()),
        ("scene", pa.string()),  # JSON of the scene that the image shows, or would
        ("alt_kind", pa.string()),  # how the alt text was made: good, partial, vague, filename, ...
        ("junk", pa.bool_()),
        ("junk_reason", pa.string()),  # a key of JUNK_KINDS, null where the record is good
        ("duplicate_of", pa.string()),  # the url of the record whose image this one repeats
    ]
)


@dataclass(frozen=True)
class ToyWeb:
    """Where it was written: a folder of parquet files, a parquet file, a parquet file."""

    web: Path
    labelled: Path
    truth: Path


@dataclass(frozen=True)
class PlannedRecord:
    """What a row of the web will be. original: what a copy repeats."""

    index: int
    kind: str
    original: "PlannedRecord | None" = None


@dataclass(frozen=True)
class ToyRecord:
    """One row of the web and the truth about it."""

    image: bytes | None
    alt_text: str | None
    url: str
    scene: Scene
    alt_kind: str
    junk_reason: str | None
    duplicate_of: str | None

    def corpus_row(self) -> Row:
        return {"image": self.image, "alt_text": self.alt_text, "url": self.url}

    def truth_row(self) -> Row:
        return {
            "url": self.url,
            "scene": json.dumps(self.scene.to_dict()),
            "alt_kind": self.alt_kind,
            "junk": self.junk_reason is not None,
            "junk_reason": self.junk_reason,
            "duplicate_of": self.duplicate_of,
        }


def write_toy_web(
    folder: Path | str,
    records: int,
    seed: int,
    labelled: int,
    *,
    rows_per_file: int = ROWS_PER_FILE,
    advance: Callable[[int], None] = lambda images: None,
) -> ToyWeb:
    """Write `records` rows of folder/web and folder/truth.parquet, and `labelled` of folder/labelled.parquet.

    The same arguments write the same bytes, however many processes draw them. Each file appears whole or not
    at all. advance: called with how many images more are drawn.
    """
    folder = Path(folder)
    toy = ToyWeb(folder / "web", folder / "labelled.parquet", folder / "truth.parquet")
    toy.web.mkdir(parents=True, exist_ok=True)
    with _processes(records + labelled) as each:

        def rows(draw: Callable[[list[T]], list[Row]], items: Sequence[T]) -> Iterator[Row]:
            starts = range(0, len(items), rows_per_file)
            for drawn in each(draw, [items[start : start + rows_per_file] for start in starts]):
                advance(len(drawn))
                yield from drawn

        write = partial(_write_part, toy.web, seed, rows_per_file)
        truth = list(rows(write, plan_records(records, seed)))
        for file in toy.web.glob("part-*.parquet"):
            if file >= toy.web / _part(records + rows_per_file - 1, rows_per_file):
                file.unlink()  # of a larger web that was written here before
        _write(toy.truth, truth, TRUTH)
        _write(toy.labelled, rows(partial(draw_labelled, seed), range(labelled)), LABELLED_TRUTH)
    return toy


@contextmanager
def _processes(images: int) -> Iterator[Callable[..., Iterable[list[Row]]]]:
    """The built-in map, or its like over several processes where so many images are worth them."""
    count = min(os.cpu_count() or 1, MOST_PROCESSES, images // WORTH_A_PROCESS)
    if count < 2:
        yield map
        return
    # Spawned, since a fork of threads may hang. Where this process is killed, the others end after their
    # file: the same bytes as whoever draws it again.
    with multiprocessing.get_context("spawn").Pool(count, _leave_interrupts) as pool:
        yield pool.imap


def _write_part(web: Path, seed: int, rows_per_file: int, plan: Sequence[PlannedRecord]) -> list[Row]:
    """Write a file of the web; the truth about its rows."""
    records = [draw_record(planned, seed) for planned in plan]
    name = _part(plan[0].index, rows_per_file)
    _write(web / name, (record.corpus_row() for record in records), CORPUS)
    return [record.truth_row() for record in records]


def _part(index: int, rows_per_file: int) -> str:
    """The file that has this row."""
    return f"part-{index // rows_per_file:05d}.parquet"


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to answer


def plan_records(records: int, seed: int) -> list[PlannedRecord]:
    """What the web's rows will be, in order. A copy comes after its original, always a good record."""
    rng = np.random.default_rng(derive_seed(seed, "toy web plan"))
    shares = GOOD_KINDS | JUNK_KINDS
    kinds = rng.choice(list(shares), size=records, p=list(shares.values())).tolist()
    plan: list[PlannedRecord] = []
    originals: list[PlannedRecord] = []
    for index, kind in enumerate(kinds):
        if kind in COPIES and originals:
            plan.append(PlannedRecord(index, kind, originals[int(rng.integers(len(originals)))]))
            continue
        plan.append(PlannedRecord(index, "good" if kind in COPIES else kind))
        if plan[-1].kind in ORIGINAL_KINDS:
            originals.append(plan[-1])
            del originals[:-ORIGINALS_KEPT]
    return plan


def draw_record(planned: PlannedRecord, seed: int) -> ToyRecord:
    """A row of the web; a copy's original is drawn again, so that any row can be drawn alone."""
    if planned.original is None:
        return _draw_record(seed, planned.index, planned.kind)
    return _draw_copy(draw_record(planned.original, seed), seed, planned.index, planned.kind)


def new_scene(rng: np.random.Generator, *, labelled: bool) -> Scene:
    """A scene of the labelled set's share of all scenes, or of the web's."""
    while True:
        scene = draw_scene(rng)
        share = derive_seed(0, "share", json.dumps(scene.to_dict())) % LABELLED_SHARE
        if (share == 0) == labelled:
            return scene


def draw_labelled(seed: int, indices: Iterable[int]) -> list[Row]:
    """Rows of LABELLED_TRUTH: other scenes than the web's, with their true short and long captions."""
    rows: list[Row] = []
    for index in indices:
        rng = np.random.default_rng(derive_seed(seed, "toy labelled", index))
        scene = new_scene(rng, labelled=True)
        image = images.encode_scene(scene, rng)
        captions = {"caption_short": caption_short(scene, rng), "caption_long": caption_long(scene, rng)}
        rows.append({"image": image, **captions, TOY_SCENE: json.dumps(scene.to_dict())})
    return rows


def _draw_record(seed: int, index: int, kind: str) -> ToyRecord:
    rng = np.random.default_rng(derive_seed(seed, "toy web", index))
    scene = new_scene(rng, labelled=False)
    alt_kind = kind
    if kind in _SPOILED_IMAGES:
        image = _SPOILED_IMAGES[kind](scene, rng)
        alt_kind = "good" if rng.random() < 0.7 else "partial"
    else:
        # Greyscale mostly goes with junk texts: a colour's name would be wrong for it.
        grey = kind == "colourless" or (kind in texts.JUNK_TEXTS and kind != "markup" and rng.random() < 0.1)
        image = images.encode_scene(scene, rng, grey=grey)
    url = f"https://toy.example/{seed}/{index:06d}"
    junk_reason = kind if kind in JUNK_KINDS else None
    return ToyRecord(image, _alt_text(scene, alt_kind, rng), url, scene, alt_kind, junk_reason, None)


def _draw_copy(original: ToyRecord, seed: int, index: int, kind: str) -> ToyRecord:
    rng = np.random.default_rng(derive_seed(seed, "toy web", index))
    assert original.image is not None
    image = original.image if kind == "duplicate" else images.encode_again(original.image, rng)
    own_words = rng.random() < 0.5
    alt_text = texts.good_text(original.scene, rng) if own_words else original.alt_text
    alt_kind = "good" if own_words else original.alt_kind
    url = f"https://mirror.toy.example/{seed}/{index:06d}"
    return ToyRecord(image, alt_text, url, original.scene, alt_kind, kind, original.url)


def _alt_text(scene: Scene, kind: str, rng: np.random.Generator) -> str | None:
    if kind == "null":
        return None
    if kind == "empty":
        return ("", " ", "\n\t")[int(rng.integers(3))]
    if kind == "mismatch":
        return texts.good_text(_unrelated(scene, rng), rng)
    return (texts.TRUE_TEXTS | texts.JUNK_TEXTS)[kind](scene, rng)


def _unrelated(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene with no thing of this one in it."""
    here = {(thing.colour, thing.shape) for thing in scene.things}
    while True:
        other = draw_scene(rng)
        if not here & {(thing.colour, thing.shape) for thing in other.things}:
            return other


_SPOILED_IMAGES = {
    "broken": images.broken_image,
    "tiny": images.tiny_image,
    "blank": images.blank_image,
    "banner": images.banner_image,
}


def _write(path: Path, rows: Iterable[Row], schema: pa.Schema) -> None:
    table = pa.Table.from_pylist(list(rows), schema)
    options = {"compression": "zstd", "row_group_size": ROWS_PER_GROUP}
    write_file(path, lambda temporary: pq.write_table(table, temporary, **options))
