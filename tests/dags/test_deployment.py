"""Schedules run the deployed config, whatever the command did last, on every registered snapshot."""

import dagster as dg
import pytest
import yaml

from dags.attempts import TAG
from dags.cli.deploy import deploy_config, deployed_lines
from dags.definitions import defs
from dags.schedules import all_schedules
from pipelines.config import load_config, save_config
from pipelines.deployment import deploy, deployment
from pipelines.errors import ConfigError
from pipelines.graph import MODEL_STAGES
from tests.dags.conftest import make_data, make_outputs

SMALL = ["toy.labelled=5", "operations.snapshot_attempts=1"]


@pytest.fixture
def config():
    return load_config("micro", SMALL, corpus="toy:20")


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


def tick(instance, name: str):
    """What a schedule asks for."""
    context = dg.build_schedule_context(instance=instance, repository_def=defs.get_repository_def())
    return defs.resolve_schedule_def(name).evaluate_tick(context)


def run(instance, request: dg.RunRequest, job: str) -> dg.ExecuteInProcessResult:
    """The run that was asked for, in this process."""
    return defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=request.partition_key,
        run_config=request.run_config,
        tags=request.tags,
        raise_on_error=False,
    )


def test_before_anything_is_deployed_nothing_runs_and_the_reason_says_so(home, instance, config):
    home.mkdir()
    save_config(config, home)  # of a command; it is none of the schedules' business
    for name in ("deployed_data", "deployed_models"):
        result = tick(instance, name)
        assert not result.run_requests
        assert (
            result.skip_message.startswith("nothing is deployed under")
            and "deploy CONFIG" in result.skip_message
        )


def test_the_data_half_makes_each_registered_snapshot_that_lacks_shards_and_gives_up_a_failing_one(
    home, instance, config
):
    other = load_config("micro", [*SMALL, "shard.samples_per_tar=99"], corpus="toy:20")
    make_data(home, config, "monday", "toy:20")
    make_data(home, other, "tuesday", "toy:30")
    deploy(home, config)
    save_config(other, home)
    (request,) = tick(instance, "deployed_data").run_requests
    assert request.partition_key == "tuesday"
    assert instance.get_dynamic_partitions("snapshots") == ["tuesday"]

    (home / "registered" / "tuesday.json").write_text("{}")  # so that its run fails at once
    assert not run(instance, request, "data").success
    (home / "registered" / "tuesday.json").unlink()
    make_data(home, other, "tuesday", "toy:30")
    assert "nothing to make" in tick(instance, "deployed_data").skip_message
    deploy(home, other)  # another config may do better
    (again,) = tick(instance, "deployed_data").run_requests
    assert (again.partition_key, again.tags[TAG] != request.tags[TAG]) == ("monday", True)


def test_the_model_half_trains_on_every_snapshot_with_shards_of_the_deployed_config(home, instance, config):
    make_data(home, config, "monday", "toy:20")
    make_data(home, config, "tuesday", "toy:30")
    make_data(home, load_config("micro", [*SMALL, "shard.samples_per_tar=9"]), "wednesday", "toy:40")
    both = config.model_copy(update={"train_snapshots": ("monday", "tuesday")})
    make_outputs(home, both.model_copy(update={"snapshot": "tuesday", "corpus": "toy:30"}), MODEL_STAGES)
    deploy(home, config)
    save_config(load_config("micro", ["train.images=99"]), home)

    (request,) = tick(instance, "deployed_models").run_requests
    result = run(instance, request, "models")
    assert result.success
    made = {event.asset_key.to_user_string(): event for event in result.get_asset_materialization_events()}
    assert made.keys() == set(MODEL_STAGES)
    for event in made.values():
        assert event.materialization.metadata["snapshot"].value == "monday+tuesday"
        assert event.materialization.metadata["ran"].value is False
    lines = [log.user_message for log in instance.all_logs(result.run_id)]
    assert any("snapshot wednesday is left out" in line for line in lines)


def test_the_times_of_the_deployed_config_count_when_the_code_is_loaded(home):
    deploy_config(home, "micro", ["operations.models_cron=5 4 1 * *"])
    assert [schedule.cron_schedule for schedule in all_schedules()] == ["0 2 * * *", "5 4 1 * *"]


def test_deploy_shows_what_it_is_and_what_it_changes(home):
    assert deployed_lines(home)[0].startswith("nothing is deployed")
    first = deploy_config(home, "micro", ["train.images=99"])
    assert first[:4] == deployed_lines(home)
    assert deployment(home).config == load_config("micro", ["train.images=99"])
    assert deploy_config(home, "micro", [])[4] == "changed    train.images"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("operations.data_cron=sometimes", "operations.data_cron: 'sometimes' is no cron schedule"),
        ("train_snapshots=[a]", "train_snapshots: the deployed models are trained on all"),
        ("annotators.labelled=gone.parquet", "no file at"),
        ("train.imges=3", "did you mean 'train.images'"),
    ],
)
def test_a_config_that_cannot_run_is_refused_and_the_deployed_one_stays(home, override, message):
    deploy_config(home, "micro", [])
    before = (home / "deployed.yaml").read_bytes()
    with pytest.raises(ConfigError, match=message):
        deploy_config(home, "micro", [override])
    assert (home / "deployed.yaml").read_bytes() == before


def test_an_edited_deployment_is_not_run(home, instance):
    deploy_config(home, "micro", [])
    path = home / "deployed.yaml"
    fields = yaml.safe_load(path.read_text())
    fields["config"]["train"]["images"] = 7
    path.write_text(yaml.safe_dump(fields))
    assert "edited since it was deployed" in tick(instance, "deployed_data").skip_message
    path.write_text("config: {}\ndigest: x\n")
    with pytest.raises(ConfigError, match="edited since"):
        deployment(home)
