"""The sensor: whole uploads are requested once, failing ones a few times, and the rest is named."""

import os
import shutil
from pathlib import Path

import dagster as dg
import pytest

from dags import sensors
from dags.definitions import defs
from dags.sensors import new_snapshots, uploads
from pipelines.config import config_of_snapshot, load_config
from pipelines.deployment import deploy
from pipelines.snapshots import registered
from tests.dags.conftest import make_outputs


class Folder:
    """The snapshots' folder of a HOME, looked at by the sensor tick by tick."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.path = home / "snapshots"
        self.path.mkdir(parents=True)
        self.instance = instance
        self.home = home
        self.cursor: str | None = None
        self.alerts: list[str] = []

    def tick(self) -> dg.SensorResult:
        with dg.build_sensor_context(instance=self.instance, definitions=defs, cursor=self.cursor) as context:
            result = new_snapshots(context)
        self.cursor = result.cursor
        return result

    def requested(self) -> list[str]:
        return [request.partition_key for request in self.tick().run_requests]

    def run_next(self) -> bool:
        """Run what a tick asks for; whether it succeeded."""
        (request,) = self.tick().run_requests
        self.instance.add_dynamic_partitions("snapshots", [request.partition_key])
        result = defs.resolve_job_def("data").execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            run_config=request.run_config,
            tags=request.tags,
            raise_on_error=False,
        )
        return result.success


@pytest.fixture
def web(tmp_path):
    """A toy web: a corpus of 20 rows, and a labelled set."""
    from components.toyworld.web import write_toy_web

    return write_toy_web(tmp_path / "web", 20, 5, 1)


@pytest.fixture
def folder(home, tmp_path, web, monkeypatch):
    with dg.instance_for_test() as instance:
        folder = Folder(home, instance)
        monkeypatch.setattr(sensors, "alert", lambda home, event, text: folder.alerts.append(text))
        settings = [f"annotators.labelled={next(web.web.parent.rglob('labelled.parquet'))}"]
        settings += ["operations.snapshot_attempts=2", "operations.snapshot_retry_seconds=0"]
        folder.config = load_config("micro", settings, corpus=f"parquet:{web.web}")
        deploy(home, folder.config)
        yield folder


def part(web) -> Path:
    return next(web.web.glob("part-*.parquet"))


def test_an_upload_is_requested_once_two_ticks_find_the_same_files(folder, web):
    target = folder.path / "2026-11-20.parquet"
    target.write_bytes(part(web).read_bytes()[:1000])
    assert folder.requested() == []
    shutil.copy(part(web), target)
    assert folder.requested() == []  # it grew
    result = folder.tick()
    (request,) = result.run_requests
    config = request.run_config["resources"]["straightshot"]["config"]
    assert config == {"deployed": True, "corpus": f"parquet:{target}"}
    assert list(result.dynamic_partitions_requests[0].partition_keys) == ["2026-11-20"]


def test_a_folder_that_says_it_is_whole_is_requested_at_once(folder, web):
    upload = folder.path / "2026-11-20"
    upload.mkdir()
    shutil.copy(part(web), upload)
    assert folder.requested() == []
    shutil.copy(part(web), folder.path / "2026-11-20" / "two.parquet")
    (upload / "_SUCCESS").touch()
    assert folder.requested() == ["2026-11-20"]


def test_a_failing_snapshot_is_tried_as_often_as_set_then_alerts_once_and_is_left_until_it_changes(
    folder, web
):
    make_outputs(folder.home, folder.config, ["annotators"])
    target = folder.path / "2026-11-20.parquet"
    target.write_bytes(part(web).read_bytes()[:1000])  # as of an upload that broke off
    folder.tick()
    assert not folder.run_next()
    assert not folder.run_next()
    for _ in range(2):
        assert "it failed 2 times and is left" in str(folder.tick().skip_reason)
    assert len(folder.alerts) == 1 and "snapshot 2026-11-20" in folder.alerts[0]

    shutil.copy(part(web), target)
    assert folder.requested() == []  # it changed: looked at twice, as a new one
    config = config_of_snapshot(folder.config, folder.home, "2026-11-20", f"parquet:{target}")
    make_outputs(folder.home, config, ["annotators", "filter"])
    assert folder.requested() == ["2026-11-20"]  # of a run that was killed before it made the rest
    make_outputs(folder.home, config, ["recaption", "shard"])
    assert folder.requested() == []
    assert registered(folder.home, "2026-11-20").corpus == f"parquet:{target}"
    assert len(folder.alerts) == 1

    os.utime(target, (0, 0))
    for _ in range(2):
        assert "changed after it was made" in str(folder.tick().skip_reason)
    assert len(folder.alerts) == 2


def test_names_follow_the_commands_rule_and_a_bad_one_is_named_once(folder, web):
    for name in ("2026 11 20.parquet", "a.parquet", ".hidden.parquet"):
        shutil.copy(part(web), folder.path / name)
    (folder.path / "a").mkdir()
    shutil.copy(part(web), folder.path / "a" / "b.parquet")
    for _ in range(2):
        folder.tick()
    assert len(folder.alerts) == 2
    assert "'2026 11 20' cannot name a snapshot: a snapshot's name is letters" in folder.alerts[0]
    assert "another entry is snapshot 'a' already" in folder.alerts[1]


def test_on_a_demo_home_the_sensor_says_why_it_waits(folder, web, home):
    shutil.copy(part(web), folder.path / "a.parquet")
    (home / "deployed.yaml").unlink()
    assert "nothing is deployed" in str(folder.tick().skip_reason)
    deploy(home, load_config("micro"))
    folder.tick()
    for _ in range(2):
        assert "and the config is for toy:300: what holds on" in str(folder.tick().skip_reason)
    assert len(folder.alerts) == 1
    deploy(home, folder.config)
    assert folder.requested() == ["a"]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["s/a.parquet", "s/notes.txt"], "parquet"),
        (["s/00000.tar"], "webdataset"),
        (["s/a.jpg", "s/a.txt"], "folder"),
        (["s/notes.txt"], None),
        ([".s/a.parquet"], None),
    ],
)
def test_the_files_of_a_snapshot_decide_how_it_is_read(tmp_path, files, kind):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    uris = [upload.uri for upload in uploads(str(tmp_path))]
    assert uris == ([f"{kind}:{tmp_path / 's'}"] if kind else [])
