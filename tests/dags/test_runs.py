"""Runs that Dagster starts itself, from its page, its schedule or its sensor: the same work."""

import dagster as dg
import pytest

from dags.assets import snapshots
from dags.cli.run import RunRequest
from dags.definitions import defs
from dags.resources import StraightshotRun
from pipelines.config import load_config, save_config, saved_config
from pipelines.graph import STAGES


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


def test_a_run_without_settings_goes_on_with_the_last_runs_config(micro_home, instance, monkeypatch):
    monkeypatch.setenv("STRAIGHTSHOT_HOME", str(micro_home))
    instance.add_dynamic_partitions(snapshots.name, ["default"])
    job = defs.resolve_job_def("straightshot")
    result = job.execute_in_process(instance=instance, partition_key="default")
    made = {event.asset_key.to_user_string(): event for event in result.get_asset_materialization_events()}
    assert made.keys() == {"labelled", "corpus", *(stage.name for stage in STAGES)}
    for stage in STAGES:
        metadata = made[stage.name].materialization.metadata
        assert metadata["ran"].value is False  # everything was fresh
        assert next(iter(metadata)) == "summary" and metadata["summary"].value.startswith("nothing to do: ")
    run = made["train"].materialization.metadata["info"].value["mlflow_run"]
    assert made["train"].materialization.metadata["mlflow"].url == f"/straightshot/mlflow/runs/{run}"
    registered = made["promote"].materialization.metadata
    assert registered["mlflow"].url == "/straightshot/mlflow/models/straightshot/versions/1"
    assert registered["report"].url == "/straightshot/report"
    evaluated = {check.check_name for check in result.get_asset_check_evaluations() if check.passed}
    assert evaluated == {"every_record_ended_once", "gate"}


def test_the_partition_is_the_snapshot(tmp_path, monkeypatch):
    monkeypatch.setenv("STRAIGHTSHOT_HOME", str(tmp_path))
    save_config(load_config("micro", ["train.images=99"], corpus="toy:7"), tmp_path)

    @dg.asset(partitions_def=snapshots)
    def look(straightshot: StraightshotRun) -> str:
        return straightshot.pipeline.config.model_dump_json()

    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(snapshots.name, ["2026-11-20"])
        result = dg.materialize(
            [look],
            instance=instance,
            partition_key="2026-11-20",
            resources={"straightshot": StraightshotRun()},
        )
    expected = saved_config(tmp_path).model_copy(update={"snapshot": "2026-11-20"})
    assert result.output_for_node("look") == expected.model_dump_json()


def test_settings_are_the_options_of_the_command_line(tmp_path):
    run = StraightshotRun(
        home=str(tmp_path), preset="micro", corpus="toy:9", snapshot="s", overrides=["train.images=77"]
    )
    config = run.config()
    assert (config.corpus, config.snapshot, config.train.images) == ("toy:9", "s", 77)


@pytest.mark.parametrize("insecure", [False, True])
def test_insecure_of_the_command_reaches_the_engine(tmp_path, insecure):
    request = RunRequest("micro", overrides=("insecure=true",) if insecure else (), ray="local")
    run = StraightshotRun(**request.settings(tmp_path))
    run.setup_for_execution(dg.build_init_resource_context())
    assert run.pipeline.engine.insecure is insecure


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "cluster:6379"),
        ({"ray": "local"}, "local"),
        ({"overrides": ["ray=local"]}, "local"),
        ({"overrides": ["train.images=9"]}, "cluster:6379"),
    ],
)
def test_an_address_that_the_run_names_goes_before_the_environment(tmp_path, monkeypatch, settings, address):
    monkeypatch.setenv("RAY_ADDRESS", "cluster:6379")
    run = StraightshotRun(home=str(tmp_path), preset="micro", **settings)
    run.setup_for_execution(dg.build_init_resource_context())
    assert run.pipeline.engine.address == address
