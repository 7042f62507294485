"""The search for duplicates over a whole corpus, in steps of bounded memory whose results are files.

    .scratch/duplicates/exact/BUCKET/split-00000.parquet    rows by the sha256 of their bytes
                        cells/BUCKET/spread-00000.parquet   the first of equal bytes, by cells of near hashes
                        pairs/exact-00000.parquet, near-…   pairs of copies
                        decided.parquet                     what does not go on: order, reason, detail, of

A row's order is its place in the corpus. Images of evaluation sets, then those of earlier snapshots, come
before it: what repeats one of them goes, by the one rule that the first survives. The driver plans from row
counts and samples hashes for the cells; every row is read and written by tasks, each of which is a part with
a receipt, so that a resume finds it. It is plain files rather than Ray Data's shuffle because that gives the
same files whatever the workers, and goes on where it was killed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.corpus.schemas import SEARCHED, Reason
from components.filtering.duplicates import DuplicateRules, Images, copies_in_cell, survivors
from components.filtering.hash_search import CELL, MOST_CELLS, MOST_TOGETHER, SAMPLE, cells_of, find_centres
from components.filtering.selection import ScoreLimits, best_share
from components.filtering.signature import unpack
from pipelines.execution.engine import Engine
from pipelines.store.parts import Parts
from pipelines.store.receipts import PartReceipt

EVALUATION, EARLIER = -(2**62), -(2**61)  # the orders of evaluation images and earlier records begin there
DECIDED = "decided.parquet"
SIGNATURE = ("key", "sha256", *SEARCHED)
PAIRS = pa.schema([("order", pa.int64()), ("of", pa.int64()), ("key", pa.string()), ("of_key", pa.string())])
CELLS = "cells"

Written = dict[str, Callable[[Path], object]]


@dataclass(frozen=True)
class Source:
    """A part with the columns of SIGNATURE; the corpus's own have `judge_score`. order: of its first row."""

    path: str
    order: int
    rows: int


@dataclass(frozen=True)
class SearchSettings:
    """What decides. threshold, share: of the judge's score, as in the filter's config."""

    rules: DuplicateRules
    threshold: float | None
    share: float | None


@dataclass(frozen=True)
class SearchSizes:
    """How the work is cut into tasks.

    rows_without_a_pool: so many are searched in this process, as they are one cell. exact_bucket,
    near_bucket: about how many rows one task joins; the near ones are near_tasks or more, of two cells and
    more. one_cell: the most rows that are one cell. cell: about how many a cell holds where there are
    several, before those from beyond its border.
    """

    rows_without_a_pool: int = MOST_TOGETHER
    parts_per_task: int = 32
    exact_bucket: int = 250_000
    near_bucket: int = 16_384
    near_tasks: int = 16
    one_cell: int = MOST_TOGETHER
    cell: int = CELL


def plan_sources(paths: Sequence[Path], start: int = 0) -> list[Source]:
    """The parts in order, numbered from `start`; row counts from their footers."""
    sources = []
    for path in paths:
        rows = pq.ParquetFile(path).metadata.num_rows
        sources.append(Source(str(path), start, rows))
        start += rows
    return sources


def search(
    engine: Engine,
    parts: Parts,
    sources: Sequence[Source],
    settings: SearchSettings,
    sizes: SearchSizes = SearchSizes(),
) -> ScoreLimits:
    """Write what is decided against, `parts.path(DECIDED)`; returns the limits of the judge's score."""
    total = sum(source.rows for source in sources)

    def run(tasks: list[dict[str, Any]], centres: npt.NDArray[np.float32] | None = None) -> list[PartReceipt]:
        if total <= sizes.rows_without_a_pool:
            worker = SearchWorker(parts, settings, centres)
            return [worker(task) for task in tasks]
        setup = {"parts": parts, "settings": settings, "centres": centres}
        return engine.map_parts(SearchWorker, tasks, setup=setup, on_done=lambda _: None)

    each = sizes.parts_per_task
    groups = [[vars(source) for source in sources[at : at + each]] for at in range(0, len(sources), each)]
    buckets = -(-total // sizes.exact_bucket)
    split = run(_tasks("split", [{"sources": group, "buckets": buckets} for group in groups]))
    exact = run(_tasks("exact", _joins(split, "exact", buckets)))
    pairs = [_only(receipt) for receipt in exact]
    if settings.rules.near:
        centres = _sampled_centres(sources, total, sizes)
        buckets = max(-(-total // sizes.near_bucket), min(sizes.near_tasks, -(-total // (2 * sizes.cell))))
        tasks = [{"sources": group, "buckets": buckets, "pairs": pairs} for group in groups]
        spread = run(_tasks("spread", tasks), centres)
        near = run(_tasks("near", _joins(spread, CELLS, buckets)))
        pairs += [_only(receipt) for receipt in near]
    own = [vars(source) for source in sources if source.order >= 0]
    (decided,) = run([{"name": "decide", "step": "decide", "pairs": pairs, "sources": own}])
    return ScoreLimits(settings.threshold, settings.share, *decided.info.get("last", ()))


class SearchWorker:
    """Does one task of a step. centres: of the cells, where there are several."""

    def __init__(
        self, parts: Parts, settings: SearchSettings, centres: npt.NDArray[np.float32] | None
    ) -> None:
        self.parts, self.settings, self.centres = parts, settings, centres

    def __call__(self, task: Any) -> PartReceipt:
        name: str = task["name"]
        if (finished := self.parts.finished(name)) is not None:
            return finished
        steps = {"split": self._split, "exact": self._exact, "spread": self._spread, "near": self._near}
        if task["step"] == "decide":
            return self._decide(name, task)
        return self.parts.write(name, steps[task["step"]](name, task))

    def _split(self, name: str, task: Any) -> Written:
        """Rows by their bytes' sha256."""
        tables = [self._read(source, ["key", "sha256"]) for source in task["sources"]]
        table = pa.concat_tables(tables)
        bucket = [int(digest[:8], 16) % task["buckets"] for digest in table["sha256"].to_pylist()]
        return _by_bucket("exact", name, table, np.array(bucket, np.int64))

    def _exact(self, name: str, task: Any) -> Written:
        """Pairs of rows with the same bytes: each and the first."""
        table = self._joined(task["files"]).sort_by([("sha256", "ascending"), ("order", "ascending")])
        digests = table["sha256"].combine_chunks()
        new = np.ones(len(table), bool)
        if len(table) > 1:
            new[1:] = np.asarray(pc.not_equal(digests[1:], digests[:-1]).to_numpy(zero_copy_only=False))
        first = np.maximum.accumulate(np.where(new, np.arange(len(table)), 0))
        return _pairs_file(name, table, np.nonzero(~new)[0], first[~new])

    def _spread(self, name: str, task: Any) -> Written:
        """The first rows of equal bytes, with their signatures, each in the cells of its hashes."""
        low = task["sources"][0]["order"]
        repeats = [self._pairs(path, low, task["sources"][-1]) for path in task["pairs"]]
        gone = pa.concat_arrays([*repeats, pa.array([], pa.int64())])
        columns = [column for column in SIGNATURE if column != "sha256"]
        table = pa.concat_tables([self._read(source, columns) for source in task["sources"]])
        table = table.filter(pc.invert(pc.is_in(table["order"], value_set=gone)))
        if self.centres is None or not len(table):
            cells = np.zeros((len(table), 1), np.int64)
        else:
            cells = cells_of(unpack(table["phash"].to_pylist()), self.centres)
        pairs = np.stack([np.repeat(np.arange(len(table)), cells.shape[1]), cells.reshape(-1)], 1)
        pairs = np.unique(pairs, axis=0)
        spread = table.take(pairs[:, 0]).append_column("cell", pa.array(pairs[:, 1]))
        return _by_bucket(CELLS, name, spread, pairs[:, 1] % task["buckets"])

    def _near(self, name: str, task: Any) -> Written:
        """Pairs of copies, cell by cell."""
        table = self._joined(task["files"]).sort_by([("cell", "ascending"), ("order", "ascending")])
        cells = table["cell"].to_numpy()
        edges = np.flatnonzero(np.diff(cells, prepend=-1, append=-1)).tolist() if len(cells) else []
        found = [np.empty((0, 2), np.int64)]
        for start, end in pairwise(edges):
            found.append(copies_in_cell(_images(table.slice(start, end - start)), self.settings.rules))
        pairs = np.unique(np.concatenate(found), axis=0)
        orders, rows = np.unique(table["order"].to_numpy(), return_index=True)
        first, second = (rows[np.searchsorted(orders, pairs[:, end])] for end in (0, 1))
        return _pairs_file(name, table, second, first)

    def _decide(self, name: str, task: Any) -> PartReceipt:
        """The groups of copies; of each the first survives. Then the last score of the best share."""
        pairs = pa.concat_tables([PAIRS.empty_table(), *map(self._table, task["pairs"])])
        repeats, firsts = survivors(np.stack([pairs["of"].to_numpy(), pairs["order"].to_numpy()], 1))
        known = np.concatenate([pairs["order"].to_numpy(), pairs["of"].to_numpy()])
        keys = pa.concat_arrays(pairs["key"].chunks + pairs["of_key"].chunks)
        orders, rows = np.unique(known, return_index=True)
        of = keys.take(pa.array(rows[np.searchsorted(orders, firsts)])).to_pylist()
        exact = [path for path in task["pairs"] if "exact-" in path]
        same_bytes = np.concatenate(
            [np.empty(0, np.int64), *(self._table(path)["order"].to_numpy() for path in exact)]
        )
        reasons = np.where(np.isin(repeats, same_bytes), Reason.DUPLICATE.value, Reason.NEAR_DUPLICATE.value)
        reasons = np.where(firsts < EARLIER, Reason.CONTAMINATED.value, reasons)
        own = repeats >= 0
        details = [f"of {key}" for key, kept in zip(of, own, strict=True) if kept]
        table = pa.table(
            {
                "order": repeats[own],
                "reason": pa.array(reasons[own].tolist(), pa.string()),
                "detail": pa.array(details, pa.string()),
                "of": firsts[own],
            }
        )
        last = self._last_of_share(task["sources"], repeats[own]) if self.settings.share else ()
        write = partial(pq.write_table, table, compression="zstd", row_group_size=65_536)
        return self.parts.write(name, {DECIDED: write}, info={"last": list(last)})

    def _last_of_share(self, sources: list[dict[str, Any]], gone: npt.NDArray[np.int64]) -> tuple[float, str]:
        """Score and key of the last record within the best share. Holds four bytes a row."""

        def rest(columns: list[str]) -> Iterator[pa.Table]:
            for source in sources:
                table = self._read(source, columns)
                table = table.filter(pa.array(~np.isin(table["order"].to_numpy(), gone)))
                yield table.filter(pc.is_valid(table["judge_score"]))

        scores = np.concatenate([table["judge_score"].to_numpy() for table in rest(["judge_score"])])

        def keys_at(rows: npt.NDArray[np.intp]) -> list[str]:
            found, start = [], 0
            for table in rest(["key", "judge_score"]):
                here = rows[(rows >= start) & (rows < start + len(table))] - start
                found += table["key"].take(here).to_pylist()
                start += len(table)
            return found

        assert self.settings.share is not None
        limits = best_share(scores, self.settings.share, self.settings.threshold, keys_at)
        return limits.last_score, limits.last_key

    def _read(self, source: dict[str, Any], columns: list[str]) -> pa.Table:
        """Columns of a part, and `order`; without the corpus's own rows that are below the threshold."""
        own = source["order"] >= 0 and self.settings.threshold is not None
        wanted = list(dict.fromkeys([*columns, "judge_score"] if own else columns))
        table = pq.ParquetFile(source["path"]).read(columns=wanted)
        order = np.arange(len(table), dtype=np.int64) + source["order"]
        table = table.append_column("order", pa.array(order))
        if own:
            limits = ScoreLimits(self.settings.threshold)
            passes = [limits.below_threshold(score) is None for score in table["judge_score"].to_pylist()]
            table = table.filter(pa.array(passes, pa.bool_()))
        return table.select([*columns, "order"])

    def _pairs(self, path: str, low: int, last: dict[str, Any]) -> pa.Array:
        """The orders of a file's pairs that are repeats and lie between two bounds."""
        inside = (pc.field("order") >= low) & (pc.field("order") < last["order"] + last["rows"])
        found = pq.read_table(self.parts.path(path), columns=["order"], filters=inside)
        return found["order"].combine_chunks()

    def _table(self, path: str) -> pa.Table:
        return pq.ParquetFile(self.parts.path(path)).read()

    def _joined(self, paths: list[str]) -> pa.Table:
        return pa.concat_tables(map(self._table, paths))


def _tasks(step: str, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": f"{step}-{number:05d}", "step": step, **task} for number, task in enumerate(tasks)]


def _joins(receipts: Sequence[PartReceipt], folder: str, buckets: int) -> list[dict[str, Any]]:
    """For each bucket that has some, its files in the order of the tasks that wrote them."""
    files: dict[int, list[str]] = {bucket: [] for bucket in range(buckets)}
    for receipt in receipts:
        for file in receipt.files:
            files[int(file.path.split("/")[1])].append(file.path)
    assert all(path.startswith(f"{folder}/") for paths in files.values() for path in paths)
    return [{"files": paths} for paths in files.values() if paths]


def _only(receipt: PartReceipt) -> str:
    (file,) = receipt.files
    return file.path


def _by_bucket(folder: str, name: str, table: pa.Table, buckets: npt.NDArray[np.int64]) -> Written:
    """A file of the rows of each bucket that has some."""
    return {
        f"{folder}/{bucket:05d}/{name}.parquet": partial(
            pq.write_table, table.filter(pa.array(buckets == bucket)), compression="zstd"
        )
        for bucket in np.unique(buckets).tolist()
    }


def _pairs_file(
    name: str, table: pa.Table, rows: npt.NDArray[np.intp], firsts: npt.NDArray[np.intp]
) -> Written:
    """A file of PAIRS: these rows of the table, and what they repeat; in order."""
    repeats, originals = (table.select(["order", "key"]).take(index) for index in (rows, firsts))
    columns = [repeats["order"], originals["order"], repeats["key"], originals["key"]]
    pairs = pa.table(columns, schema=PAIRS).sort_by([("order", "ascending"), ("of", "ascending")])
    write = partial(pq.write_table, pairs, compression="zstd", row_group_size=65_536)
    return {f"pairs/{name}.parquet": write}


def _images(table: pa.Table) -> Images:
    boxes = [tuple(box) for box in table["content_box"].to_pylist()]
    hashes = unpack(table["phash"].to_pylist())
    embeddings = _embeddings(table["embedding"].combine_chunks())
    return Images(table["order"].to_numpy(), hashes, table["thumbnail"].to_pylist(), boxes, embeddings)


def _embeddings(column: pa.ListArray) -> npt.NDArray[np.float32]:
    """(N, D); one that is missing (an evaluation image's) is NaN, which says nothing."""
    there = np.asarray(column.is_valid())
    values = column.filter(pa.array(there)).flatten().to_numpy(zero_copy_only=False)
    if not there.any():
        return np.empty((len(column), 0), np.float32)
    embeddings = np.full((len(column), len(values) // int(there.sum())), np.nan, np.float32)
    embeddings[there] = values.reshape(int(there.sum()), -1)
    return embeddings


def _sampled_centres(
    sources: Sequence[Source], total: int, sizes: SearchSizes
) -> npt.NDArray[np.float32] | None:
    """The cells' centres, from every so many-th row; None where one cell holds all."""
    if total <= sizes.one_cell:
        return None
    cells = min(total // sizes.cell, MOST_CELLS)
    step = max(1, total // (SAMPLE * cells))
    sample, start = [], 0
    for source in sources:
        if (offset := -start % step) < source.rows:
            hashes = pq.ParquetFile(source.path).read(columns=["phash"])["phash"].to_pylist()
            sample += hashes[offset::step]
        start += source.rows
    return find_centres(unpack(sample)[:, 0], cells)
