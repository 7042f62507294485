"""What is fresh and what is not: the real graph and configs, with stages that write a line each."""

import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config import load_config, save_config
from pipelines.errors import ConfigError
from pipelines.execution.progress import Progress
from pipelines.graph import STAGES, downstream, select, upstream
from pipelines.pipeline import Pipeline
from pipelines.planning import past_outputs
from pipelines.planning.planned import State
from pipelines.stage import Work
from pipelines.status import status_json, status_of
from pipelines.store import outputs, receipts
from pipelines.store.locks import lock

NAMES = [stage.name for stage in STAGES]
EVERY = [NAMES[0], "fetch", *NAMES[1:]]  # with the stage that lists of URLs have
ORDER = ["annotators", "filter", "recaption", "shard", "train", "distill", "evaluate", "promote"]


def write_line(work: Work):
    """Output that depends on the config and on the content of the inputs."""
    digests = [item.digest for inputs in work.inputs.values() for item in inputs]
    text = f"{work.stage} {work.config.model_dump_json()} {digests}"
    return [work.parts.write("line", {"line.txt": lambda path: path.write_text(text)})]


def write_the_same(work: Work):
    """Output that depends on nothing."""
    return [work.parts.write("line", {"line.txt": lambda path: path.write_text("the same")})]


def pipeline(home: Path, overrides=(), *, constant=(), corpus="toy:20", **flags) -> Pipeline:
    config = load_config("micro", ["toy.labelled=5", *overrides], corpus=corpus, **flags)
    stages = tuple(replace(s, run=write_the_same if s.name in constant else write_line) for s in STAGES)
    return Pipeline(config, home, stages=stages)


def run(made: Pipeline, names=NAMES) -> list[str]:
    """Run the stages; the names of those that had something to do."""
    made.prepare()
    return [name for name in names if made.run_one(name).ran]


def states(made: Pipeline) -> dict[str, str]:
    return {planned.stage.name: planned.state.value for planned in made.plan()}


def why(made: Pipeline, name: str) -> str:
    return next(planned.why for planned in made.plan() if planned.stage.name == name)


def test_the_stages_are_in_the_order_of_the_design():
    assert NAMES == ORDER
    for stage in EVERY:
        assert all(EVERY.index(name) < EVERY.index(stage) for name in upstream(stage))


def test_before_the_first_run_everything_is_missing_and_nothing_is_made(tmp_path):
    plan = pipeline(tmp_path / "home").plan()
    assert {planned.state for planned in plan} == {State.MISSING}
    assert all("never ran" in planned.why for planned in plan)
    assert not (tmp_path / "home").exists()


def test_after_a_run_everything_is_fresh_and_a_second_run_does_nothing(tmp_path):
    assert run(pipeline(tmp_path)) == NAMES
    assert set(states(pipeline(tmp_path)).values()) == {"fresh"}
    assert run(pipeline(tmp_path)) == []


@pytest.mark.parametrize("changed", ["filter.rows_per_fragment=99", "train.images=12345", "evaluate.shown=3"])
def test_a_changed_config_runs_its_stage_and_what_depends_on_it_and_nothing_before(tmp_path, changed):
    run(pipeline(tmp_path))
    stage, field = changed.partition("=")[0].split(".")
    after = downstream(stage) | {stage}
    made = pipeline(tmp_path, [changed, "train.accumulation=2"])  # which changes nothing that is made
    assert {name for name, state in states(made).items() if state != "fresh"} == after
    assert why(made, stage) == f"config: {field} changed"
    assert run(made) == [name for name in NAMES if name in after]


def test_going_back_to_an_earlier_config_finds_its_outputs(tmp_path):
    run(pipeline(tmp_path))
    run(pipeline(tmp_path, ["train.images=12345"]))
    assert set(states(pipeline(tmp_path)).values()) == {"fresh"}


def test_an_upstream_that_makes_the_same_bytes_stops_the_change_there(tmp_path):
    run(pipeline(tmp_path, constant=["filter"]))
    changed = pipeline(tmp_path, ["filter.rows_per_fragment=99"], constant=["filter"])
    assert states(changed)["recaption"] == "stale"
    assert "waits for filter" in why(changed, "recaption")
    assert run(changed) == ["filter"]
    assert set(states(changed).values()) == {"fresh"}


def test_a_forced_stage_runs_although_it_is_fresh(tmp_path):
    run(pipeline(tmp_path))
    made = pipeline(tmp_path)
    assert made.run_one("train", force=True).ran
    assert not made.run_one("distill").ran  # the same bytes


def test_a_new_version_of_a_stage_is_stale(tmp_path):
    run(pipeline(tmp_path))
    made = pipeline(tmp_path)
    made.stages = tuple(replace(s, version=s.version + 1) if s.name == "shard" else s for s in made.stages)
    assert why(made, "shard") == "version 1 -> 2"


def test_an_output_whose_fingerprint_is_computed_otherwise_now_says_so(tmp_path, monkeypatch):
    run(pipeline(tmp_path))
    monkeypatch.setattr(type(pipeline(tmp_path).config.shard), "NOT_IN_FINGERPRINT", {"seed": True})
    assert why(pipeline(tmp_path), "shard") == "made by another version of Straightshot"


def test_a_stage_whose_input_is_not_up_to_date_is_refused_with_what_to_do(tmp_path):
    run(pipeline(tmp_path))
    made = pipeline(tmp_path, ["filter.rows_per_fragment=99"])
    with pytest.raises(ConfigError, match=r"^shard needs filter, .*--select \+shard$"):
        made.run_one("shard")


def test_a_damaged_output_is_stale_and_mended(tmp_path):
    run(pipeline(tmp_path))
    (line,) = tmp_path.glob("shard/*/line.txt")
    text = line.read_text()
    line.write_text(text[:-1] + "!")
    assert states(pipeline(tmp_path))["shard"] == "stale"
    assert why(pipeline(tmp_path), "shard") == "its files are not as they were made"
    assert run(pipeline(tmp_path)) == ["shard"]
    assert line.read_text() == text


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"kept": 0', '"kept": 7'))


def make_older(path: Path) -> None:
    """As a version wrote it whose receipts had no hash of their own, and had other fields."""
    fields = json.loads(path.read_text())
    del fields["sha256"], fields["libraries"]
    path.write_text(json.dumps({**fields, "gpu": None}))


DOES_NOT_COUNT = {
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:100]), "it is torn or damaged: not JSON"),
    "empty": (lambda path: path.write_text(""), "it is torn or damaged: not JSON"),
    "edited": (edit, "it was edited: its content does not have the hash that it states"),
    "older": (make_older, "of an older version: it has no hash of its own"),
    "foreign": (lambda path: path.write_text("[1, 2]"), "it is damaged: not a receipt"),
}


def named(made: Pipeline) -> list[str]:
    """The lines that a plan, made twice, says about receipts."""
    made.progress = Progress(stream := io.StringIO())
    made.plan()
    made.plan()
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(("damage", "why_not"), DOES_NOT_COUNT.values(), ids=DOES_NOT_COUNT)
def test_a_receipt_that_does_not_count_is_named_once_and_its_output_made_again(tmp_path, damage, why_not):
    run(pipeline(tmp_path))
    (receipt,) = tmp_path.glob("shard/*/receipt.json")
    digest = json.loads(receipt.read_text())["digest"]
    damage(receipt)
    (line,) = named(pipeline(tmp_path))
    assert line.startswith(f"{receipt}: ") and why_not in line
    assert states(pipeline(tmp_path))["shard"] in ("stale", "missing")
    assert why_not in why(pipeline(tmp_path), "shard")
    assert run(pipeline(tmp_path)) == ["shard"]
    assert json.loads(receipt.read_text())["digest"] == digest
    assert named(pipeline(tmp_path)) == []


@pytest.mark.parametrize(("damage", "why_not"), DOES_NOT_COUNT.values(), ids=DOES_NOT_COUNT)
def test_an_old_receipt_of_an_output_that_nobody_uses_stops_nothing(tmp_path, damage, why_not):
    run(pipeline(tmp_path))
    run(pipeline(tmp_path, ["train.images=12345"]))
    (unused,) = [path for path in tmp_path.glob("train/*/receipt.json") if "12345" in path.read_text()]
    damage(unused)
    assert set(states(pipeline(tmp_path)).values()) == {"fresh"}
    assert run(pipeline(tmp_path)) == []
    changed = pipeline(tmp_path, ["train.images=54321"])
    (line,) = named(changed)
    assert line.startswith(f"{unused}: ") and why_not in line
    assert why(changed, "train") == "config: images changed"  # compared with the newest that counts


def test_of_a_thousand_old_receipts_the_newest_of_the_snapshot_is_parsed(tmp_path, monkeypatch):
    run(pipeline(tmp_path, snapshot="monday"))
    (newest,) = tmp_path.glob("shard/*/receipt.json")
    other = newest.read_text().replace('"snapshot": "monday"', '"snapshot": "sunday"')
    for number in range(1000):
        folder = tmp_path / "shard" / f"{number:016x}"
        folder.mkdir()
        (folder / "receipt.json").write_text(other)
    read = []
    parse = outputs.checked_receipt
    monkeypatch.setattr(past_outputs, "checked_receipt", lambda out: read.append(out.name) or parse(out))
    changed = pipeline(tmp_path, ["shard.samples_per_tar=99"], snapshot="monday")
    assert why(changed, "shard") == "config: samples_per_tar changed"
    assert [name for name in read if name.startswith("000")] == []


def test_a_second_look_at_finished_outputs_hashes_nothing(tmp_path, monkeypatch):
    run(pipeline(tmp_path))
    hashed = []
    monkeypatch.setattr(receipts, "sha256_file", lambda path: hashed.append(path) or "")
    assert set(states(pipeline(tmp_path)).values()) == {"fresh"}
    assert run(pipeline(tmp_path)) == []
    assert hashed == []


def test_while_an_output_is_forced_the_stages_after_it_read_the_old_one(tmp_path):
    ran = []

    def looks(work: Work):
        ran.append(pipeline(work.home).run_one("train").ran)
        return write_line(work)

    run(pipeline(tmp_path))
    made = pipeline(tmp_path)
    made.stages = tuple(replace(s, run=looks) if s.name == "shard" else s for s in made.stages)
    assert made.run_one("shard", force=True).ran
    assert ran == [False]
    assert set(states(pipeline(tmp_path)).values()) == {"fresh"}


def test_a_forced_stage_that_fails_leaves_everything_fresh(tmp_path):
    def breaks(work: Work):
        raise ValueError("no space")

    run(pipeline(tmp_path))
    made = pipeline(tmp_path)
    made.stages = tuple(replace(s, run=breaks) if s.name == "shard" else s for s in made.stages)
    with pytest.raises(ValueError, match="no space"):
        made.run_one("shard", force=True)
    assert set(states(pipeline(tmp_path)).values()) == {"fresh"}
    assert not pipeline(tmp_path).run_one("train").ran


def test_status_reads_a_config_of_another_version_and_names_it(tmp_path, capsys):
    config = load_config("micro", ["toy.labelled=5", "train.images=12345"], corpus="toy:20")
    save_config(config, tmp_path)
    path = tmp_path / "run.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "mood": "good"}))
    assert [planned.state for planned in status_of(tmp_path)] == [State.MISSING] * 8
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"{path}: of another version; not read: mood;")
    assert len(printed.err.splitlines()) == 1


def test_a_stage_that_another_process_makes_is_running(tmp_path):
    run(pipeline(tmp_path))
    (out,) = [path for path in (tmp_path / "train").iterdir() if path.is_dir()]
    shutil.rmtree(out)
    with lock(out.with_name(f"{out.name}.lock"), "other", "train"):
        assert states(pipeline(tmp_path))["train"] == "running"
        assert f"process {os.getpid()}" in why(pipeline(tmp_path), "train")
    assert states(pipeline(tmp_path))["train"] == "missing"


def test_a_failed_stage_says_why_until_it_is_made(tmp_path):
    def breaks(work: Work):
        raise ValueError("no records\nleft")

    run(pipeline(tmp_path), NAMES[:3])
    made = pipeline(tmp_path)
    made.stages = tuple(replace(s, run=breaks) if s.name == "shard" else s for s in made.stages)
    with pytest.raises(ValueError, match="no records"):
        made.run_one("shard")
    assert states(pipeline(tmp_path))["shard"] == "failed"
    assert why(pipeline(tmp_path), "shard") == "ValueError: no records left"
    run(pipeline(tmp_path))
    assert states(pipeline(tmp_path))["shard"] == "fresh"


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
    for refused in (made.refuse_missing_snapshots, lambda: made.run_one("train")):
        with pytest.raises(ConfigError, match=r"no shard of snapshot 'monday' .*--snapshot monday --select"):
            refused()
    assert made.finished_snapshots()[0] == ("tuesday",)
    run(pipeline(tmp_path, other[:1], snapshot="monday"), NAMES[:4])
    assert made.finished_snapshots() == (("monday", "tuesday"), {})
    assert made.run_one("train").ran


def digests(home: Path, stage: str) -> list[str]:
    """The digests of a stage's outputs."""
    return [json.loads(path.read_text())["digest"] for path in home.glob(f"{stage}/*/receipt.json")]


def test_a_snapshots_name_keeps_its_corpus(tmp_path):
    run(pipeline(tmp_path, snapshot="monday"), NAMES[:2])
    other = pipeline(tmp_path, snapshot="monday", corpus="toy:30")
    for refused in (other.refuse_other_corpus, other.prepare, lambda: other.run_one("filter")):
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


@pytest.mark.parametrize("corpus", ["toy:", "toy:x", "toy:0", "toy:-1", "web:x", "x", "parquet:"])
def test_a_corpus_that_is_not_understood_is_one_line(tmp_path, corpus):
    with pytest.raises(ConfigError) as error:
        pipeline(tmp_path, [f"annotators.labelled={__file__}"], corpus=corpus).prepare()
    assert len(str(error.value).splitlines()) == 1


def test_toy_annotators_need_a_toy_corpus(tmp_path):
    with pytest.raises(ConfigError, match=r"annotators\.labelled is 'toy', but the corpus is parquet:"):
        pipeline(tmp_path, corpus="parquet:x").prepare()


@pytest.mark.parametrize(
    ("expressions", "names"),
    [
        ([], EVERY),
        (["train"], ["train"]),
        (["train+"], ["train", "distill", "evaluate", "promote"]),
        (["+shard"], ["annotators", "fetch", "filter", "recaption", "shard"]),
        (["promote", "filter"], ["filter", "promote"]),
        (["filter,train"], ["filter", "train"]),
        (["+recaption", "evaluate+"], [*EVERY[:4], "evaluate", "promote"]),
        (["+recaption+"], EVERY),
    ],
)
def test_a_selection_is_a_union_in_pipeline_order(expressions, names):
    assert list(select(expressions)) == names


@pytest.mark.parametrize("expression", ["trian", "trian+", "", "+"])
def test_an_unknown_stage_suggests_the_nearest(expression):
    if not expression:
        assert list(select([expression])) == EVERY
        return
    with pytest.raises(ConfigError, match=r"did you mean 'train'|there are annotators"):
        select([expression])


def test_status_json_has_the_fields_of_the_design(tmp_path):
    run(pipeline(tmp_path))
    rows = json.loads(status_json(pipeline(tmp_path).plan()))
    assert [row["stage"] for row in rows] == ORDER
    wanted = {"stage", "snapshot", "state", "why", "fingerprint", "path", "counts", "seconds", "peak_rss_mb"}
    for row in rows:
        assert wanted <= row.keys()
        assert set(row["counts"]) == {"in", "kept", "rejected", "errored"}
        assert Path(row["path"]).is_dir()
        assert row["state"] == "fresh"
