"""Runs that Dagster starts itself, from its page, its schedule or its sensor: the same work."""

import dagster as dg
import pytest

from dags.assets import snapshots
from dags.cli.run import RunRequest
from dags.definitions import defs
from dags.resources import StraightshotRun
from pipelines.config import load_config, save_config, saved_config
from pipelines.errors import ConfigError
from pipelines.graph import STAGES
from pipelines.snapshots import register


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
    assert made.keys() == {"labelled", "corpus", "fetch", *(stage.name for stage in STAGES)}
    assert made["fetch"].materialization.metadata["fetched"].value.startswith("nothing")
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


@dg.asset(partitions_def=snapshots)
def look(straightshot: StraightshotRun) -> str:
    """The config that a run of a partition has."""
    return straightshot.pipeline.config.model_dump_json()


def materialize_partition(name: str, **settings):
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(snapshots.name, [name])
        resources = {"straightshot": StraightshotRun(**settings)}
        return dg.materialize([look], instance=instance, partition_key=name, resources=resources)


def test_a_partition_is_made_of_the_corpus_that_it_was_registered_with(tmp_path):
    """Not of the one that the last run happened to have."""
    save_config(load_config("micro", ["train.images=99"], corpus="toy:7"), tmp_path)
    register(tmp_path, "2026-11-20", "toy:9", "digest")
    result = materialize_partition("2026-11-20", home=str(tmp_path))
    changed = {"snapshot": "2026-11-20", "corpus": "toy:9"}
    expected = saved_config(tmp_path).model_copy(update=changed)
    assert result.output_for_node("look") == expected.model_dump_json()


@pytest.mark.parametrize(
    ("name", "message"),
    [("2026-11-21", "is not registered under .*--corpus"), ("a b", "a snapshot's name is letters")],
)
def test_a_partition_whose_corpus_is_not_known_is_refused_in_one_line(tmp_path, name, message):
    save_config(load_config("micro", corpus="toy:7"), tmp_path)
    with pytest.raises(ConfigError, match=message):
        StraightshotRun(home=str(tmp_path)).config(name)
    assert StraightshotRun(home=str(tmp_path), corpus="toy:8").config("2026-11-21").corpus == "toy:8"
    with pytest.raises(ConfigError, match="parquet:x, and the config is for toy:7"):
        StraightshotRun(home=str(tmp_path), corpus="parquet:x").config("2026-11-21")


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
