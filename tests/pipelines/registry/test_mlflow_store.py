"""MLflow runs: one per output, found again after a kill, nothing logged twice, limits kept."""

import json
import os
import signal
from pathlib import Path

import pytest

from pipelines.errors import ConfigError, StageFailed
from pipelines.registry.mlflow_run import KEY_LENGTH, VALUE_LENGTH, finite, flat_params, tracking_key
from pipelines.registry.mlflow_store import Tracker
from pipelines.store.mirror import mirror_of
from tests.forks import FORKS, STORES, imported_once

imported_once(*STORES)


def train_and_be_killed(home: Path) -> None:
    with Tracker(home).run("train", "f1", params={"lr": 0.1}) as run:
        for seen in range(600):
            run.log_metrics({"loss": 1 / (1 + seen)}, step=seen)
        os.kill(os.getpid(), signal.SIGKILL)


def train_a_little(home: Path, fingerprint: str) -> None:
    with Tracker(home).run("train", fingerprint) as run:
        run.log_metrics({"loss": 1.0}, step=1)


def exit_codes(target, *calls) -> list[int | None]:
    """Start the calls together, each in its own process; how they ended."""
    processes = [FORKS.Process(target=target, args=call) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module", autouse=True)
def no_server() -> None:
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(tmp_path_factory.mktemp("home with space #1"))


def test_a_killed_run_is_resumed_without_doubling_a_point(tracker):
    assert exit_codes(train_and_be_killed, (tracker.home,)) == [-signal.SIGKILL]
    begun = tracker.find("train", "f1")
    assert begun is not None
    before = {point.step for point in tracker.client.get_metric_history(begun, "loss")}
    assert 0 < len(before) < 600  # a part had been flushed

    with tracker.run("train", "f1", params={"lr": 0.1}) as run:
        assert run.id == begun
        for seen in range(0, 600):
            run.log_metrics({"loss": 1 / (1 + seen)}, step=seen)
    history = tracker.client.get_metric_history(begun, "loss")
    assert sorted(point.step for point in history) == list(range(600))
    assert {point.step: point.value for point in history} == {s: 1 / (1 + s) for s in range(600)}
    assert tracker.client.get_run(begun).info.status == "FINISHED"


def test_four_processes_open_a_fresh_database_together(tmp_path):
    assert exit_codes(train_a_little, *((tmp_path, f"f{i}") for i in range(4))) == [0] * 4
    tracker = Tracker(tmp_path)
    assert len({tracker.find("train", f"f{i}") for i in range(4)} - {None}) == 4


def test_an_error_marks_the_run_failed_and_keeps_its_points(tracker):
    with pytest.raises(ZeroDivisionError), tracker.run("train", "f2") as run:
        run.log_metrics({"loss": 2.0}, step=64)
        raise ZeroDivisionError
    found = tracker.client.get_run(run.id)
    assert (found.info.status, found.data.metrics) == ("FAILED", {"loss": 2.0})
    with tracker.run("train", "f2") as again:
        assert again.id == run.id
        assert tracker.client.get_run(run.id).info.status == "RUNNING"


def test_parameters_digests_tables_and_files_are_found_in_the_run(tracker, tmp_path):
    (tmp_path / "grid.png").write_bytes(b"png")
    rows = [{"steps": 1, "mean": 0.5}, {"steps": 2, "mean": 0.75}]
    digest = "ab" * 32
    for _ in range(2):  # the second time is a resume
        with tracker.run(
            "evaluate", "f3", params={"a": {"b": [1, 2], "c": None}}, datasets={"web": digest}
        ) as run:
            run.log_artifact(tmp_path / "grid.png", "images")
            run.log_text("<svg/>", "curves/quality.svg")
            run.log_table(rows, "tables/evaluations.json")
    found = tracker.client.get_run(run.id)
    assert found.data.params == {"a.b": "[1, 2]", "a.c": "null"}
    (dataset,) = [given.dataset for given in found.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("web", digest[:36])
    assert found.data.tags["dataset.web"] == digest
    assert json.loads(found.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "tables/evaluations.json", "type": "table"}
    ]
    folder = tracker.home / "mlflow-artifacts" / run.id / "artifacts"
    assert (folder / "images/grid.png").read_bytes() == b"png"
    assert (folder / "curves/quality.svg").read_text() == "<svg/>"
    table = json.loads((folder / "tables/evaluations.json").read_text())
    assert table == {"columns": ["steps", "mean"], "data": [[1, 0.5], [2, 0.75]]}


def test_names_and_values_stay_within_the_limits(tracker):
    params = {"deep": {"x" * 300: 1, "x" * 299 + "y": 2}, "odd (name)": "v" * 9000}
    flat = flat_params(params)
    assert len(flat) == 3
    assert max(map(len, flat)) == KEY_LENGTH
    assert max(map(len, flat.values())) == VALUE_LENGTH
    with tracker.run("train", "f4", params=params | {f"p{i}": i for i in range(250)}) as run:
        run.log_metrics({"colour, position": 1.0})
    assert len(tracker.client.get_run(run.id).data.params) == 253
    assert tracker_metrics(tracker, run.id) == {"colour_ position": 1.0}
    assert tracking_key("curve/loss") == "curve/loss"
    assert finite({"a": 1.0, "b": None, "c": float("nan")}) == {"a": 1.0}


def tracker_metrics(tracker: Tracker, run_id: str) -> dict[str, float]:
    return dict(tracker.client.get_run(run_id).data.metrics)


def test_a_moved_home_and_a_server_that_is_not_there_say_so_in_one_line(tracker, tmp_path, monkeypatch):
    copied = tmp_path / "copy"
    copied.mkdir()
    assert tracker.experiment  # the database is there
    (copied / "mlflow.db").write_bytes((tracker.home / "mlflow.db").read_bytes())
    with pytest.raises(ConfigError, match="moved or copied") as moved:
        assert Tracker(copied).experiment
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9' does not answer") as absent:
        assert Tracker(tmp_path, "http://127.0.0.1:9").experiment
    (tmp_path / "mlflow.db").write_bytes(b"not a database, but long enough to look like one" * 30)
    with pytest.raises(ConfigError, match=r"mlflow\.db does not open") as broken:
        assert Tracker(tmp_path).experiment
    assert not any("\n" in str(error.value) for error in (moved, absent, broken))
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        Tracker(mirror_of("bucket", "home"))


def test_the_address_of_homes_own_database_is_recognised_when_the_environment_names_it(tracker, monkeypatch):
    monkeypatch.chdir(tracker.home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    named = Tracker(tracker.home)
    assert named.own
    assert (named.uri, named.experiment) == (tracker.uri, tracker.experiment)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert not Tracker(tracker.home).own


def test_a_store_that_is_away_for_a_while_ends_no_training(tracker, monkeypatch):
    monkeypatch.setattr("pipelines.registry.mlflow_run.FLUSH_SECONDS", 0.0)
    with tracker.run("train", "f5") as run:
        run.log_metrics({"loss": 3.0}, step=1)
        tracker.client.delete_run(run.id)  # MLflow refuses points of a deleted run
        run.log_metrics({"loss": 2.0}, step=2)
        tracker.client.restore_run(run.id)
    history = tracker.client.get_metric_history(run.id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 2.0)]
    with (
        pytest.raises(StageFailed, match=r"MLflow at .* failed .* run again"),
        tracker.run("train", "f6") as run,
    ):
        tracker.client.delete_run(run.id)
        run.log_metrics({"loss": 2.0}, step=2)
