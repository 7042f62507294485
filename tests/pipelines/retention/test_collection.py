"""What nobody needs goes, all that anybody needs stays, and a kill on the way leaves nothing half there."""

import os
import shutil
import time
from hashlib import sha256
from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.errors import ConfigError, StageBusy, StraightshotError
from pipelines.graph import downstream
from pipelines.registry.champion import rollback
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import Registry, resolve
from pipelines.registry.packaging import DOWNLOADS, local_package
from pipelines.retention import collection
from pipelines.retention.collection import Item, Survey, collect, survey
from pipelines.status import status_of
from pipelines.store.local import LocalStore
from pipelines.store.locks import Owner, lock, reading
from pipelines.store.outputs import load_receipt
from pipelines.studies.trainings import note_trainings
from pipelines.verify import targets, verify
from tests.forks import KILLED, STORES, imported_once, status_at
from tests.pipelines.make_champion import make_champion
from tests.pipelines.retention.small_runs import NAMES, register, run

imported_once(*STORES)
DAYS = 2 * 86400


@pytest.fixture(autouse=True)
def no_server(monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def why(found: Survey, path: Path) -> tuple[bool, str]:
    (item,) = [item for item in found.items if item.path == path]
    return item.stays, item.why


def going(found: Survey) -> set[Path]:
    return {item.path for item in found.going}


def trained(outputs: dict[str, Path]) -> set[Path]:
    """What a run has for itself when only train's config is its own."""
    return {outputs[name] for name in ("train", *downstream("train"))}


def folders(home: Path) -> set[Path]:
    return {path for name in ("corpus", *NAMES) for path in (home / name).iterdir() if path.is_dir()}


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> tuple[Path, list[dict[str, Path]]]:
    """Two runs that share the data and differ from train on; run.json is the second one's."""
    home = tmp_path_factory.mktemp("template")
    return home, [run(home, f"train.images={images}") for images in (1024, 2048)]


@pytest.fixture
def two_runs(template, tmp_path) -> list[dict[str, Path]]:
    """The outputs of the two runs, in a copy of their HOME at tmp_path."""
    home, runs = template
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    return [{name: tmp_path / path.relative_to(home) for name, path in outputs.items()} for outputs in runs]


def test_models_that_an_alias_or_a_rollback_names_keep_all_they_were_made_from(tmp_path):
    home = tmp_path / "home"
    first, second = run(home, "filter.rows_per_fragment=90"), run(home, "train.images=2048")
    third, fourth = run(home, "train.images=3072"), run(home, "train.images=4096")
    registry = Registry(Tracker(home))
    make_champion(registry, register(home, first, packaged=True))
    for outputs in (second, third):
        make_champion(registry, register(home, outputs))
    candidate = run(home, "train.images=5120")
    registry.set_alias("challenger", register(home, candidate))
    never, last = run(home, "train.images=6144"), run(home, "train.images=1024")

    found = survey(home, keep=1)
    assert going(found) == trained(fourth) | trained(never)
    assert why(found, first["distill"]) == (True, "version 1 of 'straightshot' (a champion before)")
    assert why(found, first["filter"])[1].endswith("was made from it") and first["filter"] != last["filter"]
    assert why(found, third["distill"]) == (True, "version 3 of 'straightshot' (champion)")
    assert why(found, candidate["evaluate"]) == (True, "version 4 of 'straightshot' (challenger)")
    assert why(found, candidate["train"])[1].endswith("was made from it")
    assert why(found, last["train"]) == (True, "of the last run's config")

    done: list[Item] = []
    assert collect(found, done.append) == []
    assert {item.path for item in done} == trained(fourth) | trained(never)
    assert not survey(home, keep=1).going
    assert {planned.state.value for planned in status_of(home)} == {"fresh"}
    assert not [fault for target in targets(home) for fault in verify(target).faults]
    assert [rollback(home).version, rollback(home).version] == ["2", "1"]
    assert (resolve("champion", home) / "config.json").read_bytes() == (
        first["distill"] / "model/config.json"
    ).read_bytes()
    assert run(home, "train.images=6144")["train"] == never["train"]  # what went is made again


def test_the_trainings_of_a_study_stay_until_it_is_finished(tmp_path):
    trainings = [run(tmp_path, f"train.images={images}") for images in (512, 1024, 2048)]
    run(tmp_path, "train.images=4096")
    configs = [
        load_config("micro", ["toy.labelled=5", f"train.images={n}"], corpus="toy:20") for n in (512, 1024)
    ]
    note_trainings(tmp_path, "guidance", configs)
    found = survey(tmp_path, keep=1)
    assert going(found) == trained(trainings[2])
    assert why(found, trainings[0]["train"]) == (True, "of the study guidance, which is not finished")
    note_trainings(tmp_path, "guidance", [])
    assert going(survey(tmp_path, keep=1)) == set.union(*map(trained, trainings))
    (tmp_path / "study/guidance.json").write_text("{")
    with pytest.raises(ConfigError, match=r"guidance\.json: damaged; run the study again"):
        survey(tmp_path)


def test_the_newest_outputs_of_each_snapshot_stay(tmp_path):
    runs = {
        snapshot: [run(tmp_path, f"train.images={n}", snapshot=snapshot) for n in (512, 1024, 1536)]
        for snapshot in ("a", "b")
    }
    assert going(survey(tmp_path, keep=3)) == set()
    assert going(survey(tmp_path, keep=2)) == trained(runs["a"][0]) | trained(runs["b"][0])
    kept = survey(tmp_path, keep=1)
    assert going(kept) == set().union(*(trained(r) for s in ("a", "b") for r in runs[s][:2]))
    assert why(kept, runs["a"][2]["train"]) == (True, "the newest")


def test_what_a_living_run_makes_or_reads_stays(two_runs, tmp_path):
    old, _ = two_runs
    me = Owner.me("other", "something")
    store = LocalStore(tmp_path / "train")
    with lock(old["distill"].with_name(f"{old['distill'].name}.lock"), "run", "distill"):
        assert why(survey(tmp_path, 1), old["distill"]) == (True, f"being made by {me}")
        assert old["train"] not in going(survey(tmp_path, 1))  # it was made from it
    with reading(store, old["train"].name, me):
        found = survey(tmp_path, 1)
        assert why(found, old["train"]) == (True, f"read by {me}")
    with reading(store, old["train"].name, me):  # begun after the look
        assert [(item.path, item.why) for item in collect(survey_of(old["train"], found))] == [
            (old["train"], f"read by {me}")
        ]
    assert load_receipt(old["train"]) is not None


def survey_of(path: Path, found: Survey) -> Survey:
    """A survey that has only this to go."""
    return Survey(found.home, (Item(path, 1, False, "nothing reaches it"),), found.config)


def test_a_run_that_starts_while_its_output_goes_is_refused_and_then_makes_it_again(
    two_runs, tmp_path, monkeypatch
):
    old, _ = two_runs
    whole = load_receipt(old["train"])
    found = survey(tmp_path, 1)
    real, refused = collection.retire, []

    def retire(out: Path) -> Path:
        if out == old["train"]:
            with pytest.raises(StageBusy, match=r"train \w+ is being made by process"):
                run_again(tmp_path)
            refused.append(out)
        return real(out)

    monkeypatch.setattr(collection, "retire", retire)
    config = (tmp_path / "run.json").read_bytes()
    monkeypatch.setattr(collection, "_saved", lambda home: config)  # the refused run leaves its own
    collect(found)
    assert refused == [old["train"]] and not old["train"].exists()
    again = load_receipt(run_again(tmp_path)["train"])
    assert again is not None and whole is not None and again.digest == whole.digest


def run_again(home: Path) -> dict[str, Path]:
    return run(home, "train.images=1024")


def test_a_run_with_another_config_stops_a_collection_that_was_planned_before(two_runs, tmp_path):
    found = survey(tmp_path, 1)
    old = run_again(tmp_path)  # needs what was to go
    with pytest.raises(StageBusy, match="run gc again"):
        collect(found)
    assert all(load_receipt(path) is not None for path in old.values())


def survey_and_collect(home: Path) -> None:
    collect(survey(home, 1))


@pytest.mark.parametrize("point", ["before_receipt", "before_rename", "before_removal"])
@pytest.mark.parametrize("pass_", [1, 3])
def test_killed_anywhere_every_output_is_whole_or_not_there_and_the_next_one_finishes(
    two_runs, tmp_path, point, pass_
):
    old, kept = two_runs
    whole = {path: load_receipt(path) for path in (*old.values(), *kept.values())}
    assert status_at(f"gc.{point}:{pass_}", survey_and_collect, tmp_path) == KILLED
    for path, receipt in whole.items():
        assert receipt is not None
        if path.exists():
            assert all((path / entry.path).is_file() for entry in receipt.files)
            assert load_receipt(path) in (receipt, None)
    assert all(load_receipt(path) == whole[path] for path in kept.values())

    collect(survey(tmp_path, 1))
    assert folders(tmp_path) >= set(kept.values()) and folders(tmp_path).isdisjoint(trained(old))
    assert not [path for path in folders(tmp_path) if path.suffix]
    again = run_again(tmp_path)
    assert {path: load_receipt(path).digest for path in again.values()} == {
        path: whole[path].digest for path in again.values()
    }


def test_unfinished_work_of_the_last_config_stays_and_that_of_another_goes(two_runs, tmp_path):
    _, last = two_runs
    (last["train"] / "receipt.json").unlink()
    other = tmp_path / "train" / ("0" * 16)
    (other / "scratch").mkdir(parents=True)
    (other / "scratch" / "checkpoint").write_text("much")
    found = survey(tmp_path, 1)
    assert why(found, last["train"]) == (True, "of the last run's config")
    assert why(found, other) == (False, "not finished, and not of the last run's config")
    assert next(item.bytes for item in found.items if item.path == other) == 4


def test_an_output_that_cannot_be_read_stays_and_says_so(two_runs, tmp_path):
    old, _ = two_runs
    receipt = old["train"] / "receipt.json"
    receipt.write_text(receipt.read_text().replace('"seconds"', '"second"'))
    stays, reason = why(survey(tmp_path, 1), old["train"])
    assert stays and "cannot be told" in reason and "edited" in reason


def test_what_killed_processes_left_goes_after_a_day(two_runs, tmp_path):
    _, last = two_runs
    old = [tmp_path / "report.html.tmp-1", tmp_path / "cache" / "verified.json.tmp-2"]
    old += [tmp_path / "models" / "fetching-3", last["shard"] / "scratch.tmp-4"]
    new = tmp_path / "run.json.tmp-5"
    (tmp_path / "models").mkdir()
    for path in (*old, new):
        path.write_text("half")
    for path in old:
        os.utime(path, (time.time() - DAYS,) * 2)
    found = survey(tmp_path)
    assert going(found) == set(old)
    collect(found)
    assert not any(path.exists() for path in old) and new.exists()


def test_a_download_stays_as_long_as_an_alias_names_its_model(tmp_path):
    tracker = Tracker(tmp_path)
    tracker.client.create_registered_model("straightshot")
    folders_of = []
    for number in (1, 2):
        location = f"s3://bucket/model-{number}"
        tracker.client.create_model_version("straightshot", source=location)
        folder = tmp_path / DOWNLOADS / sha256(location.encode()).hexdigest()[:16]
        folder.mkdir(parents=True)
        assert local_package(tracker, location) == folder  # it is there, so nothing is fetched
        folders_of.append(folder)
    Registry(tracker).set_alias("challenger", "2")
    found = survey(tmp_path)
    assert going(found) == {folders_of[0]}
    collect(found)
    assert [path.exists() for path in folders_of] == [False, True]


def test_a_registry_that_does_not_answer_stops_it(two_runs, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StraightshotError, match="MLflow at 'http://127"):
        survey(tmp_path, 1, uri="http://127.0.0.1:9")


def test_two_collections_do_not_run_at_once(two_runs, tmp_path):
    with lock(tmp_path / "gc.lock", "other", "gc"), pytest.raises(StageBusy, match="gc is being made by"):
        collect(survey(tmp_path, 1))


def test_mlflow_and_dagster_are_left_alone(two_runs, tmp_path):
    for name in ("mlflow-artifacts", "dagster", "logs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.tmp-1").write_text("theirs")
        os.utime(tmp_path / name / "x.tmp-1", (time.time() - DAYS,) * 2)
    assert going(survey(tmp_path, 1)) == trained(two_runs[0])
