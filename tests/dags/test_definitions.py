"""The graph that Dagster loads, as a whole: a change of it shows here, and is meant."""

import os
import time
from pathlib import Path

import dagster as dg
import pytest

from dags.assets import snapshots
from dags.definitions import defs
from dags.sensors import SETTLED_SECONDS, new_snapshots, settled_snapshots
from pipelines.config import load_config, save_config
from pipelines.graph import DATA_STAGES, STAGES

GRAPH = {
    "labelled": set(),
    "corpus": set(),
    "annotators": {"labelled"},
    "filter": {"corpus", "annotators"},
    "recaption": {"filter", "annotators"},
    "shard": {"recaption"},
    "train": {"annotators", "shard"},  # the judge checks what the upsampler writes
    "distill": {"train", "shard"},
    "evaluate": {"annotators", "shard", "train", "distill"},
    "promote": {"distill", "evaluate"},
}


@pytest.fixture
def instance(tmp_path, monkeypatch):
    monkeypatch.setenv("STRAIGHTSHOT_HOME", str(tmp_path))
    with dg.instance_for_test() as instance:
        yield instance


def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_the_graph_is_the_one_of_the_design():
    graph = {name: {dep.asset_key.to_user_string() for dep in spec.deps} for name, spec in specs().items()}
    assert graph == GRAPH
    assert {stage.name for stage in STAGES} == set(GRAPH) - {"labelled", "corpus"}


def test_data_stages_are_partitioned_by_snapshot_and_models_are_not():
    partitioned = {name for name, spec in specs().items() if spec.partitions_def is not None}
    assert partitioned == {*DATA_STAGES, "corpus"}


def test_every_stage_has_a_blocking_check_reported_by_the_asset_itself():
    checks = {
        (check.asset_key.to_user_string(), check.name): check.blocking
        for asset in defs.assets or ()
        if isinstance(asset, dg.AssetsDefinition)
        for check in asset.check_specs
    }
    counted = {(stage.name, "every_record_ended_once"): True for stage in STAGES}
    assert checks == {**counted, ("promote", "gate"): True}


def test_every_asset_has_a_description_and_its_stages_version():
    for name, spec in specs().items():
        assert spec.description, name
        assert spec.group_name == "straightshot"  # of several groups the page shows only their boxes
    versions = {stage.name: str(stage.version) for stage in STAGES}
    assert {name: specs()[name].code_version for name in versions} == versions


def test_the_jobs_and_what_starts_them():
    assert defs.resolve_job_def("straightshot").executor_def is dg.in_process_executor
    data = {key.to_user_string() for key in defs.resolve_job_def("data").asset_layer.executable_asset_keys}
    assert data == {"labelled", "corpus", "annotators", *DATA_STAGES}
    assert defs.resolve_schedule_def("nightly").cron_schedule == "0 2 * * *"
    assert defs.resolve_sensor_def("new_snapshots").job_name == "data"


def test_the_schedule_requests_the_last_runs_snapshot(instance, tmp_path):
    save_config(load_config("micro", snapshot="2026-11-20"), tmp_path)
    context = dg.build_schedule_context(instance=instance, repository_def=defs.get_repository_def())
    request = defs.resolve_schedule_def("nightly").evaluate_tick(context).run_requests[0]
    assert request.partition_key == "2026-11-20"
    assert instance.get_dynamic_partitions(snapshots.name) == ["2026-11-20"]


def settle(path: Path, seconds: float = SETTLED_SECONDS + 1) -> None:
    for file in [path, *path.rglob("*")]:
        os.utime(file, (time.time() - seconds, time.time() - seconds))


def test_a_new_snapshot_is_requested_once_it_has_settled_and_only_once(instance, tmp_path):
    folder = tmp_path / "snapshots"
    folder.mkdir()
    (folder / "2026-11-20.parquet").write_bytes(b"x")
    (folder / "2026-11-21").mkdir()
    (folder / "2026-11-21" / "00000.tar").write_bytes(b"x")
    settle(folder)
    (folder / "2026-11-22.parquet").write_bytes(b"still being written")

    context = dg.build_sensor_context(instance=instance, definitions=defs)
    result = new_snapshots(context)
    requests = {request.partition_key: request for request in result.run_requests}
    assert requests.keys() == {"2026-11-20", "2026-11-21"}
    config = requests["2026-11-21"].run_config["resources"]["straightshot"]["config"]
    assert config == {"corpus": f"webdataset:{folder / '2026-11-21'}", "snapshot": "2026-11-21"}
    (added,) = result.dynamic_partitions_requests
    assert list(added.partition_keys) == ["2026-11-20", "2026-11-21"]

    instance.add_dynamic_partitions(snapshots.name, ["2026-11-20", "2026-11-21"])
    assert isinstance(new_snapshots(context), dg.SkipReason)


@pytest.mark.parametrize(
    ("files", "uri"),
    [
        (["s/a.parquet", "s/notes.txt"], "parquet"),
        (["s/00000.tar"], "webdataset"),
        (["s/a.jpg", "s/a.txt"], "folder"),
        (["s/notes.txt"], None),
        ([".s/a.parquet"], None),
    ],
)
def test_the_files_of_a_snapshot_decide_how_it_is_read(tmp_path, files, uri):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    settled = settled_snapshots(tmp_path, time.time() + SETTLED_SECONDS + 1)
    assert settled == ({"s": f"{uri}:{tmp_path / 's'}"} if uri else {})


def test_the_settings_of_a_deployment_are_valid(tmp_path):
    source = Path(__file__).parents[2] / "infra" / "dagster" / "dagster.yaml"
    (tmp_path / "dagster.yaml").write_text(source.read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
