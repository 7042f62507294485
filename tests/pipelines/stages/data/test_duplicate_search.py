"""The search for duplicates: the same decisions however the work is cut."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from components.corpus.schemas import FILTERED
from components.filtering.duplicates import DuplicateRules
from components.filtering.signature import signature_of
from pipelines.execution.engine import Engine
from pipelines.stages.data.duplicate_search import (
    DECIDED,
    SIGNATURE,
    SearchSettings,
    SearchSizes,
    plan_sources,
    search,
)
from pipelines.store.parts import Parts

SMALL = SearchSizes(
    rows_without_a_pool=0, parts_per_task=1, exact_bucket=16, near_bucket=16, one_cell=8, cell=8
)
SETTINGS = SearchSettings(DuplicateRules(), threshold=None, share=0.5)


def write_corpus(folder: Path) -> list[Path]:
    """Three parts of 16 pictures; in each the second has the first's bytes, the third is its copy."""
    rng, paths = np.random.default_rng(0), []
    schema = pa.schema([FILTERED.field(name) for name in (*SIGNATURE, "judge_score")])
    for part in range(3):
        rows = []
        for number in range(16):
            if number not in (1, 2):
                coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
                image = coarse.resize((150, 150), Image.Resampling.BICUBIC)
            digest = f"{part:032x}{0 if number == 1 else number:032x}"
            shown = image.resize((110, 110)) if number == 2 else image
            if number == 0:
                first = image
            elif number in (1, 2):
                shown = first if number == 1 else first.resize((110, 110))
            measured = vars(signature_of(shown)) | {"embedding": None, "judge_score": rng.random()}
            rows.append({"key": f"{part}-{number}", "sha256": digest, **measured})
        paths.append(folder / f"part-{part}.parquet")
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), paths[-1])
    return paths


def test_many_cells_and_tasks_decide_as_one_does(tmp_path):
    sources = plan_sources(write_corpus(tmp_path))
    once, many = (Parts(tmp_path / name, "duplicates") for name in ("once", "many"))
    with Engine(workers=1) as engine:
        limits = search(engine, once, sources, SETTINGS)
        assert search(engine, many, sources, SETTINGS, SMALL) == limits
    assert len(list((many.root / "cells").iterdir())) > 1
    assert many.path(DECIDED).read_bytes() == once.path(DECIDED).read_bytes()
    decided = pq.read_table(many.path(DECIDED)).to_pydict()
    assert decided["order"] == [1, 2, 17, 18, 33, 34]
    assert decided["reason"] == ["duplicate", "near_duplicate"] * 3
