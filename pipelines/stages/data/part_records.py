"""One part of a data stage: the records that go on, the rejects with their reasons, counts that add up.

captioned/part-00000.parquet    what goes on (or a tar)
rejects/part-00000.parquet      a row for every record that does not (REJECTS schema)
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.corpus.rejection import Rejection
from components.corpus.schemas import REJECT_EXAMPLES, REJECTS, Reason
from pipelines.store.parts import Parts
from pipelines.store.receipts import Counts, PartReceipt

FILTERED_FOLDER, CAPTIONED_FOLDER, REJECTS_FOLDER = "filtered", "captioned", "rejects"
DROPPED_FOLDER = "dropped_texts"  # of records that go on without their alt text, as the rejects are written
DROPPED_TEXTS = "dropped_texts"  # in a receipt's info: how many, by reason
DAMAGED = "damaged"  # in a receipt's info: what beside the images cannot be read, and how often
EXAMPLES_FOLDER = "reject_examples"  # some rejects of each reason with a small image (reject_examples.py)
BUFFER_BYTES = 4 * 2**20  # of a column, read at a time
ROWS_PER_PAGE = 16  # rows after which a page of 1 MiB or more ends: a reader holds whole pages

Row = dict[str, Any]
Writer = Callable[[Path], object]


def reject_row(stage: str, record: Mapping[str, Any], rejection: Rejection) -> Row:
    """A row of REJECTS. record: anything with key, alt_text and url."""
    known = {name: record[name] for name in ("key", "alt_text", "url")}
    return {**known, "stage": stage, "reason": rejection.reason.value, "detail": rejection.detail}


def write_part(
    parts: Parts,
    name: str,
    files: Mapping[str, Writer],
    *,
    kept: int,
    rejects: Sequence[Row],
    info: Mapping[str, Any] | None = None,
) -> PartReceipt:
    """Commit a part of `kept` records that lie in `files` (relative path -> writer).

    Its counts add up by construction. The rejects are counted here; `rejects_file` writes them.
    """
    reasons = Counter(row["reason"] for row in rejects)
    errored = reasons[Reason.ERRORED.value]
    counts = {
        "in": kept + len(rejects),
        "kept": kept,
        "rejected": len(rejects) - errored,
        "errored": errored,
    }
    return parts.write(
        name,
        files,
        counts=Counts.model_validate(counts),
        reasons=dict(sorted(reasons.items())),
        info=info,
    )


def write_table_part(
    parts: Parts,
    name: str,
    folder: str,
    kept: pa.Table,
    rejects: Sequence[Row],
    dropped: Sequence[Row] = (),
    examples: Sequence[Row] = (),
    info: Mapping[str, Any] | None = None,
) -> PartReceipt:
    """Commit a part of two files: `folder`/NAME.parquet and the rejects.

    A third and a fourth where there are any: dropped, rows as of rejects, of kept records whose alt text was
    dropped; examples, rows of REJECT_EXAMPLES.
    """
    files = table_file(folder, name, kept) | rejects_file(name, rejects)
    if examples:
        table = pa.Table.from_pylist(list(examples), schema=REJECT_EXAMPLES)
        files[parquet_path(EXAMPLES_FOLDER, name)] = partial(pq.write_table, table, compression="zstd")
    if dropped:
        files |= rejects_file(name, dropped, DROPPED_FOLDER)
        reasons = dict(sorted(Counter(row["reason"] for row in dropped).items()))
        info = {**(info or {}), DROPPED_TEXTS: reasons}
    return write_part(parts, name, files, kept=len(kept), rejects=rejects, info=info)


def table_file(folder: str, name: str, table: pa.Table) -> dict[str, Writer]:
    """A part's file of records. Images are compressed already."""
    compression = {column: "none" if column == "image" else "zstd" for column in table.schema.names}
    write = partial(pq.write_table, table, compression=compression, write_batch_size=ROWS_PER_PAGE)
    return {parquet_path(folder, name): write}


def rejects_file(name: str, rejects: Sequence[Row], folder: str = REJECTS_FOLDER) -> dict[str, Writer]:
    """A part's file of rejects."""
    table = pa.Table.from_pylist(list(rejects), schema=REJECTS)
    return {parquet_path(folder, name): partial(pq.write_table, table, compression="zstd")}


def parquet_path(folder: str, name: str) -> str:
    """Where in a stage's output the part's file of that folder lies."""
    return f"{folder}/{name}.parquet"


def open_part(path: str | Path) -> pq.ParquetFile:
    """A part, to be read in batches: without the buffer, Arrow would hold the whole of it."""
    return pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)


def combine(name: str, receipts: Iterable[PartReceipt]) -> PartReceipt:
    """One receipt for several parts: what a worker hands back that made them in one pass."""
    receipts = list(receipts)
    reasons: Counter[str] = Counter()
    damaged: Counter[str] = Counter()
    for receipt in receipts:
        reasons.update(receipt.reasons)
        damaged.update(receipt.info.get(DAMAGED, {}))
    return PartReceipt(
        name=name,
        files=tuple(entry for receipt in receipts for entry in receipt.files),
        counts=sum((receipt.counts for receipt in receipts), Counts()),
        reasons=dict(sorted(reasons.items())),
        info={DAMAGED: dict(sorted(damaged.items()))} if damaged else {},
    )
