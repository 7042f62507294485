"""The graph that Dagster loads, as a whole: a change of it shows here, and is meant."""

from pathlib import Path

import dagster as dg

from dags.definitions import defs
from pipelines.graph import DATA_STAGES, EVERY_STAGE

GRAPH = {
    "labelled": set(),
    "corpus": set(),
    "annotators": {"labelled"},
    "fetch": {"corpus"},  # of a list of URLs; the filter then reads it in the place of the corpus
    "filter": {"corpus", "fetch", "annotators"},
    "recaption": {"filter", "annotators"},
    "shard": {"recaption"},
    "train": {"annotators", "shard"},  # the judge checks what the upsampler writes
    "distill": {"train", "shard"},
    "evaluate": {"annotators", "shard", "train", "distill"},
    "promote": {"distill", "evaluate"},
}


def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_the_graph_is_the_one_of_the_design():
    graph = {name: {dep.asset_key.to_user_string() for dep in spec.deps} for name, spec in specs().items()}
    assert graph == GRAPH
    assert {stage.name for stage in EVERY_STAGE} == set(GRAPH) - {"labelled", "corpus"}


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
    counted = {(stage.name, "every_record_ended_once"): True for stage in EVERY_STAGE}
    assert checks == {**counted, ("promote", "gate"): True}


def test_every_asset_has_a_description_and_its_stages_version():
    for name, spec in specs().items():
        assert spec.description, name
        assert spec.group_name == "straightshot"  # of several groups the page shows only their boxes
    versions = {stage.name: str(stage.version) for stage in EVERY_STAGE}
    assert {name: specs()[name].code_version for name in versions} == versions


def assets_of(job: str) -> set[str]:
    keys = defs.resolve_job_def(job).asset_layer.executable_asset_keys
    return {key.to_user_string() for key in keys}


def test_the_jobs_and_what_starts_them():
    assert defs.resolve_job_def("straightshot").executor_def is dg.in_process_executor
    assert assets_of("data") == {"labelled", "corpus", "annotators", *DATA_STAGES}
    assert assets_of("models") == {stage.name for stage in EVERY_STAGE} - {"annotators", *DATA_STAGES}
    schedules = {name: defs.resolve_schedule_def(name) for name in ("deployed_data", "deployed_models")}
    assert {name: (s.job_name, s.cron_schedule) for name, s in schedules.items()} == {
        "deployed_data": ("data", "0 2 * * *"),
        "deployed_models": ("models", "0 3 * * 0"),
    }
    assert defs.resolve_sensor_def("new_snapshots").job_name == "data"


def test_the_settings_of_a_deployment_are_valid(tmp_path):
    source = Path(__file__).parents[2] / "infra" / "dagster" / "dagster.yaml"
    (tmp_path / "dagster.yaml").write_text(source.read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
