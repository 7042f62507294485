"""A toy web, a judge, a small corpus, and what the filter made of the whole web."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.corpus.readers import open_corpus
from components.toyworld.web import ToyWeb, write_toy_web
from pipelines.store.receipts import Receipt
from tests.pipelines.stages.filter.small_filter import ROWS, SEED, SMALL, run, write_corpus
from tests.small_judge import save_judge


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> ToyWeb:
    return write_toy_web(tmp_path_factory.mktemp("toy"), records=ROWS, seed=SEED, labelled=1)


@pytest.fixture(scope="module")
def annotators(tmp_path_factory) -> Path:
    """An annotators output with an untrained judge."""
    return save_judge(tmp_path_factory.mktemp("annotators") / "judge").parent


@pytest.fixture(scope="module")
def small(toy: ToyWeb, tmp_path_factory) -> str:
    """The first 80 records, in four fragments as SMALL cuts them: two of one row group, then two more."""
    rows = pq.read_table(toy.web).to_pylist()[:80]
    corpus = write_corpus(tmp_path_factory.mktemp("small") / "web.parquet", rows, row_group_size=40)
    plan = open_corpus(corpus, SMALL.rows_per_fragment)
    assert [[fragment.rows for fragment in stream] for stream in plan.streams] == [[20, 20], [20, 20]]
    return corpus


@pytest.fixture(scope="module")
def done(toy: ToyWeb, annotators: Path, tmp_path_factory) -> tuple[Path, Receipt]:
    home = tmp_path_factory.mktemp("home")
    return home, run(home, f"parquet:{toy.web}", annotators)
