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
from pipelines.graph import downstream
from pipelines.pipeline import Pipeline
from pipelines.planning import past_outputs
from pipelines.planning.planned import State
from pipelines.stage import Work
from pipelines.status import status_json, status_of
from pipelines.store import outputs, receipts
from pipelines.store.locks import lock
from tests.pipelines.line_stages import NAMES, pipeline, run, states, why, write_line


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


def test_status_json_has_the_fields_of_the_design(tmp_path):
    run(pipeline(tmp_path))
    rows = json.loads(status_json(pipeline(tmp_path).plan()))
    assert [row["stage"] for row in rows] == NAMES
    wanted = {"stage", "snapshot", "state", "why", "fingerprint", "path", "counts", "seconds", "peak_rss_mb"}
    for row in rows:
        assert wanted <= row.keys()
        assert set(row["counts"]) == {"in", "kept", "rejected", "errored"}
        assert Path(row["path"]).is_dir()
        assert row["state"] == "fresh"
