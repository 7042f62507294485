"""What Dagster keeps of a stage's error, and so what its page shows."""

import dagster as dg
import pytest

from components.errors import InputError
from dags.failures import Failure, shown_failures
from pipelines.errors import ConfigError, GateRefused, StageFailed

LINE = "MLflow at 'http://***@host' does not answer; start it"


def step_failure(error: Exception):
    """The event of an asset in which `error` is raised, of a cause with a password in it."""

    @dg.asset
    def failing() -> None:
        with shown_failures():
            raise error from OSError("http://user:pl4nted@host refused")

    with dg.instance_for_test() as instance:
        result = dg.materialize([failing], instance=instance, raise_on_error=False)
        (event,) = [event for event in result.all_events if event.is_step_failure]
        records = instance.all_logs(result.run_id)
    assert "pl4nted" not in str(records)
    return event.step_failure_data


@pytest.mark.parametrize("kind", [ConfigError, GateRefused, InputError])
def test_the_page_shows_our_line_first_and_nothing_of_its_causes(kind):
    failed = step_failure(kind("MLflow at 'http://user:pl4nted@host' does not answer; start it"))
    assert failed.error.message.strip() == f"dags.failures.Failure: {LINE}"
    assert failed.error.cause is None and failed.error.context is None
    assert failed.user_failure_data.description == LINE
    assert failed.user_failure_data.metadata == {}


def test_a_bug_keeps_its_traceback_without_the_secret():
    failed = step_failure(ValueError("shapes differ at http://user:pl4nted@host"))
    assert failed.user_failure_data.description == "ValueError: shapes differ at http://***@host"
    traceback = failed.user_failure_data.metadata["traceback"].value
    assert "test_failures.py" in traceback and "OSError: http://***@host refused" in traceback


def test_the_command_gets_the_error_itself_and_a_stages_bad_input_is_no_bad_usage():
    refused = GateRefused("too low")
    assert Failure(refused).error is refused
    assert isinstance(Failure(InputError("no column")).error, StageFailed)
