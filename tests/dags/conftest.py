"""A HOME whose outputs are a line each, under the fingerprints that the real stages would give them."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config import RunConfig, config_of_snapshot
from pipelines.graph import DATA_STAGES, STAGES
from pipelines.pipeline import Pipeline
from pipelines.stage import Work


def write_line(work: Work):
    digests = [item.digest for inputs in work.inputs.values() for item in inputs]
    text = f"{work.stage} {work.snapshot} {work.config.model_dump_json()} {digests}"
    return [work.parts.write("line", {"line.txt": lambda path: path.write_text(text)})]


def make_outputs(home: Path, config: RunConfig, names: Iterable[str]) -> None:
    """Make these stages' outputs in moments; for a real run they are fresh."""
    made = Pipeline(config, home, stages=tuple(replace(stage, run=write_line) for stage in STAGES))
    made.prepare()
    for name in names:
        made.run_one(name)


def make_data(home: Path, config: RunConfig, snapshot: str, corpus: str) -> None:
    """Make annotators and shards of one snapshot."""
    of_snapshot = config_of_snapshot(config, home, snapshot, corpus)
    make_outputs(
        home, of_snapshot, ("annotators", *(stage.name for stage in STAGES if stage.name in DATA_STAGES))
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The HOME of a daemon's code."""
    monkeypatch.setenv("STRAIGHTSHOT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
