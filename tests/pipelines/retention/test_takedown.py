"""A takedown on a HOME where everything was run: what it removes, marks and names."""

import hashlib
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.shards.index import HOLDOUT, TRAIN, Split
from components.shards.reader import read_split
from pipelines.config import saved_config
from pipelines.errors import ConfigError
from pipelines.execution.progress import Progress
from pipelines.pipeline import Pipeline
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import models
from pipelines.registry.model_version import withdrawn_in
from pipelines.report import PAGE
from pipelines.retention.catalog import Output, read_catalog
from pipelines.retention.takedown import Takedown, purge, requested, take_down
from pipelines.stages.data.part_records import EXAMPLES_FOLDER
from pipelines.status import status_of
from pipelines.withdrawals import withdrawals
from tests.forks import KILLED, STORES, imported_once, status_at
from tests.pipelines.one_by_one import OneByOne

imported_once(*STORES)
DATA = ("filter", "recaption", "shard")


@pytest.fixture(scope="module")
def original(micro_home: Path) -> Path:
    return micro_home


@pytest.fixture
def home(original: Path, tmp_path, monkeypatch) -> Path:
    """A copy of a HOME after a run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return shutil.copytree(original, tmp_path / "home", ignore=shutil.ignore_patterns("mlflow-artifacts"))


def newest(home: Path, stage: str) -> Output:
    return read_catalog(home).of(stage)[0]


def samples(home: Path, split: Split) -> dict[str, bytes]:
    """Key -> image of the newest shards."""
    index = newest(home, "shard").path / "index.json"
    return {sample.key: sample.image for sample in read_split(index, split)}


def examples(home: Path) -> list[dict[str, Any]]:
    """The rejects that the newest output of the filter keeps to be looked at."""
    return [
        row
        for path in sorted((newest(home, "filter").path / EXAMPLES_FOLDER).iterdir())
        for row in pq.read_table(path).to_pylist()
    ]


def images_of_the_web(home: Path) -> Counter[str]:
    """sha256 of every image of the raw corpus, and how often it comes."""
    return Counter(
        hashlib.sha256(image or b"").hexdigest()
        for path in home.glob("corpus/*/toy/web/*.parquet")
        for image in pq.read_table(path, columns=["image"])["image"].to_pylist()
    )


def tag(home: Path) -> int | None:
    version = Tracker(home).client.get_model_version("straightshot", "1")
    withdrawn = withdrawn_in(version.tags)
    return withdrawn.records if withdrawn else None


def trained_on(takedown: Takedown) -> list[int | None]:
    return [marked.records for marked in takedown.marked]


def run_data_stages(home: Path) -> None:
    config = saved_config(home)
    assert config is not None
    pipeline = Pipeline(config, home, OneByOne(), Progress(quiet=True))
    for name in DATA:
        pipeline.run_one(name)


def test_a_withdrawn_record_is_in_no_later_shard_and_its_model_says_so(home):
    before = samples(home, TRAIN) | samples(home, HOLDOUT)
    key, held_out = next(iter(samples(home, TRAIN))), next(iter(samples(home, HOLDOUT)))
    once = {sha256 for sha256, count in images_of_the_web(home).items() if count == 1}
    shown = next(row["key"] for row in examples(home) if row["reason"] and row["sha256"] in once)
    (home / PAGE).write_text("a page with its images")
    takedown = take_down(home, requested([key, held_out, shown], None, "a letter"))
    assert {withdrawal.key for withdrawal in takedown.new} == {key, held_out, shown}
    assert {withdrawal.sha256 for withdrawal in takedown.new} >= {hashlib.sha256(before[key]).hexdigest()}
    assert (
        [(holding.output, holding.records) for holding in takedown.holdings]
        == [
            (newest(home, "filter"), 3),  # of the reject the small image
            *((newest(home, stage), 2) for stage in DATA[1:]),
        ]
    )
    assert trained_on(takedown) == [1] and tag(home) == 1  # the held-out one was not trained on
    assert models(home)[0].notes[0].startswith("version 1 of 'straightshot': trained on 1 record")

    states = {planned.stage.name: planned for planned in status_of(home)}
    assert states["annotators"].fresh
    assert states["filter"].why == "input withdrawals changed"
    run_data_stages(home)
    after = samples(home, TRAIN) | samples(home, HOLDOUT)
    assert after == {k: image for k, image in before.items() if k not in (key, held_out)}
    for stage, folder in (("filter", "filtered"), ("recaption", "captioned")):
        paths = (newest(home, stage).path / folder).iterdir()
        assert not {key, held_out} & {k for path in paths for k in pq.read_table(path)["key"].to_pylist()}
    receipt = newest(home, "filter").receipt
    assert receipt.reasons["withdrawn"] == 3 and receipt.counts.in_ == 300
    assert not {key, held_out, shown} & {row[name] for row in examples(home) for name in ("key", "of")}

    again = take_down(home, [])
    assert again.new == () and len(again.holdings) == 3 and trained_on(again) == [1]  # the old outputs
    assert [why for _, why in purge(home, again)] == [None] * 3
    assert not (home / PAGE).exists()
    assert take_down(home, []).holdings == () and tag(home) == 1
    states = {planned.stage.name: planned.state.value for planned in status_of(home)}
    assert {states[name] for name in DATA} == {"fresh"}


def test_an_image_file_withdraws_its_record(home, tmp_path):
    key, image = next(iter(samples(home, TRAIN).items()))
    (tmp_path / "picture").write_bytes(image)
    takedown = take_down(home, requested([], tmp_path / "picture"))
    assert trained_on(takedown) == [1] and takedown.holdings[0].records == 1
    config = saved_config(home)
    assert config is not None and Pipeline(config, home).inputs.source("corpus").withdrawn == (key,)


def test_killed_before_the_models_are_marked_the_same_command_goes_on(home):
    wanted = requested([next(iter(samples(home, TRAIN)))], None)
    assert status_at("withdraw.before_mark", take_down, home, wanted) == KILLED
    assert len(withdrawals(home)) == 1 and tag(home) is None
    assert trained_on(take_down(home, wanted)) == [1] and tag(home) == 1


def test_a_model_whose_shards_are_gone_is_named(home):
    key = next(iter(samples(home, TRAIN)))
    shutil.rmtree(newest(home, "shard").path)
    assert trained_on(take_down(home, requested([key], None))) == [None] and tag(home) is None


def test_a_record_that_is_nowhere_is_refused_unless_it_is_to_come(home):
    before = [planned.state for planned in status_of(home)]
    with pytest.raises(ConfigError, match=r"no record 0+ in any filter output .* with --unseen"):
        take_down(home, requested(["0" * 32], None))
    assert withdrawals(home) == ()
    take_down(home, requested(["0" * 32], None), unseen=True)
    assert [withdrawal.key for withdrawal in withdrawals(home)] == ["0" * 32]
    assert [planned.state for planned in status_of(home)] == before


def test_a_list_of_keys_may_have_comments(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text(f"# from a letter\n{'1' * 32}\n\n  {'2' * 32}\n{'1' * 32}\n")
    assert [withdrawal.key for withdrawal in requested([], path)] == ["1" * 32, "2" * 32]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1234\n", r"keys.txt, line 1: '1234' is no key"),
        ("# none\n", r"keys.txt: it names no key"),
        (None, r"keys.txt: No such file"),
    ],
)
def test_a_list_that_holds_no_keys_is_one_line(tmp_path, content, message):
    path = tmp_path / "keys.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        requested([], path)
