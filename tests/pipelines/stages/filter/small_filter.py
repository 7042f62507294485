"""The filter stage on a small toy web, without Ray, and what it left."""

from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from components.corpus.readers import open_corpus
from components.corpus.schemas import CORPUS
from components.filtering.alt_text import AltTextRules
from components.toyworld.web import ToyWeb
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.stage import Input, run_stage
from pipelines.stages.filter import STAGE, FilterConfig
from pipelines.store.receipts import Receipt
from tests.pipelines.one_by_one import OneByOne

ROWS, SEED = 360, 3
CONFIG = FilterConfig(rows_per_fragment=64, alt_text=AltTextRules(languages=("en",)))
SMALL = FilterConfig(rows_per_fragment=20)


def run(
    home: Path,
    corpus: str,
    annotators: Path,
    config: FilterConfig = CONFIG,
    engine: Engine | None = None,
    log: TextIO | None = None,
    withdrawn: tuple[str, ...] = (),
) -> Receipt:
    return run_stage(
        STAGE,
        config,
        {
            "corpus": (Input("corpus", corpus, open_corpus(corpus).digest(), withdrawn=withdrawn),),
            "annotators": (Input("annotators", str(annotators), "a" * 64),),
        },
        home=home,
        snapshot="default",
        engine=engine or OneByOne(),
        progress=Progress(log, quiet=log is None),
    )


def output(home: Path, receipt: Receipt) -> Path:
    return home / "filter" / receipt.fingerprint


def contents(home: Path, receipt: Receipt) -> dict[str, bytes]:
    return {entry.path: (output(home, receipt) / entry.path).read_bytes() for entry in receipt.files}


def table(home: Path, receipt: Receipt, folder: str) -> pa.Table:
    paths = sorted(e.path for e in receipt.files if e.path.startswith(f"{folder}/"))
    return pa.concat_tables([pq.ParquetFile(output(home, receipt) / path).read() for path in paths])


def write_corpus(path: Path, rows: list[dict[str, Any]], row_group_size: int | None = None) -> str:
    pq.write_table(pa.Table.from_pylist(rows, schema=CORPUS), path, row_group_size=row_group_size)
    return f"parquet:{path}"


def good_rows(toy: ToyWeb, count: int) -> list[dict[str, Any]]:
    urls = {
        row["url"]
        for row in pq.read_table(toy.truth).to_pylist()
        if row["alt_kind"] == "good" and not row["junk"]
    }
    return [row for row in pq.read_table(toy.web).to_pylist() if row["url"] in urls][:count]
