"""Snapshots and their corpora: a name keeps its corpus, and training takes all that it is told."""

import os
import shutil

import pytest

from components.corpus.readers import READERS
from pipelines.config import PATH_KINDS, load_config
from pipelines.errors import ConfigError
from pipelines.stages.fetch import URLS
from tests.pipelines.line_stages import NAMES, digests, pipeline, run, states, why


def test_snapshots_share_what_does_not_depend_on_them_and_train_takes_them_all(tmp_path):
    run(pipeline(tmp_path, snapshot="monday"))
    assert run(pipeline(tmp_path, snapshot="tuesday", corpus="toy:30"), NAMES[:4]) == NAMES[1:4]
    both = pipeline(tmp_path, ["train_snapshots=[monday, tuesday]"], snapshot="tuesday", corpus="toy:30")
    train = both.run_one("train").receipt
    assert train.snapshot == "monday+tuesday"
    assert len(train.inputs["shard"]) == 2

    # Which of the two is the run's own makes no difference to the models.
    again = pipeline(tmp_path, ["train_snapshots=[tuesday, monday]"], snapshot="monday")
    assert not again.run_one("train").ran


def test_a_snapshot_that_was_never_registered_is_named(tmp_path):
    run(pipeline(tmp_path, snapshot="monday"), NAMES[:4])
    made = pipeline(tmp_path, ["train_snapshots=[monday, someday]"], snapshot="monday")
    with pytest.raises(ConfigError, match=r"no snapshot 'someday' is registered.*--snapshot someday"):
        made.run_one("train")


def test_train_reads_each_snapshots_output_of_its_own_config_and_not_the_newest(tmp_path):
    run(pipeline(tmp_path, snapshot="monday"), NAMES[:4])
    (by_this_config,) = digests(tmp_path, "shard")
    run(pipeline(tmp_path, ["shard.samples_per_tar=99"], snapshot="monday"), NAMES[:4])  # newer
    run(pipeline(tmp_path, snapshot="tuesday", corpus="toy:30"), NAMES[:4])
    both = pipeline(tmp_path, ["train_snapshots=[monday, tuesday]"], snapshot="tuesday", corpus="toy:30")
    assert both.run_one("train").receipt.inputs["shard"][0] == by_this_config


def test_a_snapshot_without_an_output_of_this_config_is_named_with_the_command_that_makes_it(tmp_path):
    run(pipeline(tmp_path, snapshot="monday"), NAMES[:4])
    other = ["shard.samples_per_tar=99", "train_snapshots=[monday, tuesday]"]
    made = pipeline(tmp_path, other, snapshot="tuesday", corpus="toy:30")
    run(made, NAMES[:4])
    for refused in (made.inputs.refuse_missing_snapshots, lambda: made.run_one("train")):
        with pytest.raises(ConfigError, match=r"no shard of snapshot 'monday' .*--snapshot monday --select"):
            refused()
    assert made.inputs.finished_snapshots()[0] == ("tuesday",)
    run(pipeline(tmp_path, other[:1], snapshot="monday"), NAMES[:4])
    assert made.inputs.finished_snapshots() == (("monday", "tuesday"), {})
    assert made.run_one("train").ran


def test_a_snapshots_name_keeps_its_corpus(tmp_path):
    run(pipeline(tmp_path, snapshot="monday"), NAMES[:2])
    other = pipeline(tmp_path, snapshot="monday", corpus="toy:30")
    for refused in (other.inputs.refuse_other_corpus, other.prepare, lambda: other.run_one("filter")):
        with pytest.raises(ConfigError, match=r"toy:30: snapshot 'monday' is toy:20 since .*--snapshot NAME"):
            refused()
    assert len(list(tmp_path.glob("corpus/*/receipt.json"))) == 1  # the other web was not even written
    assert run(pipeline(tmp_path, snapshot="tuesday", corpus="toy:30"), NAMES[:2]) == ["filter"]


def test_until_something_was_made_of_it_a_name_is_free(tmp_path):
    """Half an upload that failed, or a run that was stopped at once, does not hold its name."""
    pipeline(tmp_path, snapshot="monday").register()
    assert run(pipeline(tmp_path, snapshot="monday", corpus="toy:30"), NAMES[:2]) == NAMES[:2]
    with pytest.raises(ConfigError, match="snapshot 'monday' is toy:30"):
        pipeline(tmp_path, snapshot="monday").prepare()


def test_a_registered_snapshot_brings_its_corpus_where_none_is_named(tmp_path):
    pipeline(tmp_path, snapshot="monday", corpus="toy:20").register()

    def corpus(*overrides, **flags):
        return load_config("micro", overrides, home=tmp_path, **flags).corpus

    assert corpus(snapshot="monday") == corpus("snapshot=monday") == "toy:20"
    assert corpus(snapshot="tuesday") == corpus() == "toy:300"  # the preset's
    assert corpus(snapshot="monday", corpus="toy:9") == corpus("corpus=toy:9", snapshot="monday") == "toy:9"


def test_a_damaged_record_of_a_snapshot_is_one_line(tmp_path):
    pipeline(tmp_path, snapshot="monday").register()
    (tmp_path / "registered" / "monday.json").write_text("{")
    with pytest.raises(ConfigError, match=r"monday\.json: damaged, .*run snapshot 'monday' again"):
        pipeline(tmp_path, snapshot="monday").prepare()


def test_a_corpus_whose_content_changed_is_refused_under_its_name_and_stale_under_another(tmp_path):
    run(pipeline(tmp_path))
    (web,) = tmp_path.glob("corpus/*/toy/web/part-*.parquet")
    mine = tmp_path / "mine.parquet"
    shutil.copy(web, mine)
    labelled = next(tmp_path.glob("corpus/*/toy/labelled.parquet"))

    def own(snapshot="mine"):
        settings = [f"annotators.labelled={labelled}"]
        return pipeline(tmp_path, settings, corpus=f"parquet:{mine}", snapshot=snapshot)

    run(own())
    assert states(own())["filter"] == "fresh"
    os.utime(mine, (0, 0))  # touched, not changed
    assert states(own())["filter"] == "fresh"

    from components.toyworld.web import write_toy_web

    shutil.copy(write_toy_web(tmp_path / "other", 20, 99, 1).web / "part-00000.parquet", mine)
    with pytest.raises(ConfigError, match=r"its content changed since .* another name with --snapshot NAME"):
        own().prepare()
    assert "its content changed" in why(own(), "filter")
    assert run(own("mine-2")) == NAMES[1:]


def test_a_corpus_that_cannot_be_read_is_an_error_of_the_run_and_a_reason_of_the_plan(tmp_path):
    made = pipeline(tmp_path, [f"annotators.labelled={__file__}"], corpus=f"parquet:{tmp_path / 'gone'}")
    with pytest.raises(ConfigError, match="gone"):
        made.prepare()
    made.run_one("annotators")
    assert "gone" in why(made, "filter")


@pytest.mark.parametrize("corpus", ["toy", "toy:", "toy:x", "toy:0", "toy:-1", "web:x", "/x", "parquet:"])
def test_a_corpus_that_is_not_understood_is_one_line(tmp_path, corpus):
    with pytest.raises(ConfigError, match=r"corpus.*: expected toy:N") as error:
        pipeline(tmp_path, corpus=corpus).prepare()
    assert len(str(error.value).splitlines()) == 1


def test_every_kind_of_corpus_that_is_read_is_understood():
    assert {*READERS, URLS} == {*PATH_KINDS}


def test_toy_annotators_need_a_toy_corpus(tmp_path):
    with pytest.raises(ConfigError, match=r"annotators\.labelled is 'toy', but the corpus is parquet:"):
        pipeline(tmp_path, corpus="parquet:x").prepare()
