"""Runs of the command through Dagster: a failed one is an alert, and is done again from where it was."""

import json
import time
from dataclasses import replace
from functools import partial

import dagster as dg
import pytest

from dags.definitions import defs
from dags.instance import open_instance
from dags.launch import PARENT, launch, retry
from dags.watch import look
from pipelines.alerts import URL_VARIABLE
from pipelines.errors import ConfigError, StageFailed
from pipelines.graph import STAGES
from pipelines.pipeline import Pipeline
from tests.dags.conftest import write_line

NAMES = ["annotators", "filter", "recaption", "shard", "train"]


@pytest.fixture
def broken(home, monkeypatch):
    """Stages of a line each, of which train fails until the list is emptied. Also what ran."""
    home.mkdir()
    faults, ran = ["diverged"], []

    def work_on(work):
        ran.append(work.stage)
        if work.stage == "train" and faults:
            raise StageFailed(faults[0])
        return write_line(work)

    stages = tuple(replace(stage, run=work_on) for stage in STAGES)
    monkeypatch.setattr("dags.resources.Pipeline", partial(Pipeline, stages=stages))
    return faults, ran


def settings(home, **more):
    overrides = ["toy.labelled=5"]
    return {"home": str(home), "preset": "micro", "corpus": "toy:20", "overrides": overrides, **more}


def waiting_alerts(home):
    return [json.loads(path.read_text()) for path in sorted((home / "alerts").glob("*.json"))]


def test_a_failed_run_is_an_alert_and_its_retry_does_what_is_left(home, broken, monkeypatch):
    faults, ran = broken
    monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:9/")  # nobody listens: the alert is kept
    with pytest.raises(StageFailed, match="diverged"):
        launch(home, NAMES, "monday", settings(home, force=["filter"], snapshot="monday"))
    assert ran == NAMES
    (kept,) = waiting_alerts(home)
    assert (kept["event"], kept["text"]) == ("run_failed", "train of snapshot monday: diverged")
    with open_instance(home) as instance:
        assert look(home, instance, time.time()) == ["alerts that wait for the webhook: 1"]

    faults.clear()
    ran.clear()
    retried = retry(home)
    assert ran == ["train"]  # the forced stage had been made again, and is not forced once more
    assert retried.stages == len(NAMES) + 2  # and the two sources
    with open_instance(home) as instance:
        again, first = instance.get_runs()
        assert (again.status, again.tags[PARENT]) == (dg.DagsterRunStatus.SUCCESS, first.run_id)
        assert again.tags["dagster/partition"] == "monday"
        assert retried.of == first.run_id


def test_a_run_to_retry_must_have_failed(home, broken):
    with pytest.raises(ConfigError, match="; the last ones: none failed"):
        retry(home)
    with pytest.raises(StageFailed):
        launch(home, NAMES, "monday", settings(home))
    with pytest.raises(ConfigError, match=r"^no failed run zz in .*; the last ones: [0-9a-f]{8}$"):
        retry(home, "zz")


def test_a_stage_that_stands_still_fails_its_run(home, monkeypatch):
    home.mkdir()
    stages = tuple(replace(stage, run=lambda work: time.sleep(60)) for stage in STAGES)
    monkeypatch.setattr("dags.resources.Pipeline", partial(Pipeline, stages=stages))
    overrides = ["toy.labelled=5", "operations.stall_seconds=0.5"]
    with pytest.raises(StageFailed, match=r"^annotators made no progress for 0\.5 s .*; it was ended"):
        launch(home, ["annotators"], "monday", settings(home, overrides=overrides))


def test_a_run_that_could_not_say_that_it_failed_is_an_alert_once(home, monkeypatch):
    """Its process was killed, say, and Dagster's server noticed."""
    monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:9/")
    with open_instance(home) as instance:
        job = defs.resolve_job_def("models")
        config = {"resources": {"straightshot": {"config": {"home": str(home)}}}}
        lost = instance.create_run_for_job(job, run_config=config)
        instance.report_run_failed(lost, "its process\nwas lost")
        assert look(home, instance, time.time())[0] == f"run {lost.run_id}: its process was lost"
        assert len(look(home, instance, time.time())) == 1  # only that the alert waits
    (kept,) = waiting_alerts(home)
    assert kept["text"] == f"run {lost.run_id}: its process was lost"
