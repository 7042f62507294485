"""What the search for duplicates found, for the part that it is about; and the images behind it.

decided.parquet of duplicate_search.py, and beside it sources.parquet: the parts that were searched, so that
the original of a copy can be looked up by its order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.durable import write_file
from pipelines.stages.data.duplicate_search import Source
from pipelines.stages.data.part_records import open_part

SOURCES = pa.schema([("path", pa.string()), ("order", pa.int64()), ("rows", pa.int64())])
SOURCES_FILE = "sources.parquet"
ROWS_AT_A_TIME = 16  # with images


@dataclass(frozen=True)
class Copy(Rejection):
    """Why a copy does not go on. of: the order of what it is a copy of."""

    of: int


def decided_rows(path: Path, order: int, rows: int) -> dict[int, Rejection]:
    """What is decided against of a part, by its row."""
    inside = (pc.field("order") >= order) & (pc.field("order") < order + rows)
    table = pq.read_table(path, filters=inside)
    return {
        row["order"] - order: Copy(Reason(row["reason"]), row["detail"], row["of"])
        for row in table.to_pylist()
    }


def write_sources(path: Path, sources: Sequence[Source]) -> None:
    """A table of the parts, for who looks a row up by its order."""
    ordered = sorted(sources, key=lambda source: source.order)
    table = pa.Table.from_pylist([vars(source) for source in ordered], schema=SOURCES)
    write_file(path, partial(pq.write_table, table))


def image_at(sources: Path, order: int) -> tuple[str, bytes] | None:
    """Key and image of the row of this order; None where its part is gone or has no images."""
    table = pq.read_table(sources)
    at = int(np.searchsorted(table["order"].to_numpy(), order, side="right")) - 1
    row = order - table["order"][at].as_py()
    try:
        file = open_part(table["path"][at].as_py())
    except OSError:  # of an earlier snapshot, since removed
        return None
    if not {"key", "image"} <= set(file.schema_arrow.names):
        return None
    for batch in file.iter_batches(ROWS_AT_A_TIME, columns=["key", "image"]):
        if row < batch.num_rows:
            return batch["key"][row].as_py(), batch["image"][row].as_py()
        row -= batch.num_rows
    return None
