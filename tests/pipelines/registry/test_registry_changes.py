"""Changes of one registry from several places: one at a time, and none left half made."""

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from pipelines.errors import StageBusy, StageFailed
from pipelines.registry import registry_lock as lock_module
from pipelines.registry.champion import changing, history, promote, rollback
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import Registry, models
from pipelines.registry.model_version import QUALITY_TAG
from pipelines.registry.quality import Quality
from pipelines.registry.registry_lock import LOCK_TAG
from pipelines.store.locks import STALE_SECONDS, Owner
from tests.forks import FORKS, KILLED, STORES, imported_once, status_at

imported_once(*STORES)

GOOD = Quality(1, {"prompt_following": 0.8, "prompt_following_as_is": 0.8}, "p", "r")
ROUNDS = 4


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for many HOMEs."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    address = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    Tracker(tmp_path_factory.mktemp("home"), address).client.search_experiments()
    return address


def registry_with(home: Path, uri: str, name: str, versions: int) -> Registry:
    """Registered versions that all pass the gate and equal each other."""
    registry = Registry(Tracker(home, uri), name)
    client = registry.tracker.client
    with suppress(MlflowException):
        client.create_registered_model(name)
    for _ in range(versions):
        client.create_model_version(name, source=str(home), tags={QUALITY_TAG: GOOD.to_json()})
    return registry


def promote_in_turn(home: Path, uri: str, name: str, version: str) -> None:
    for _ in range(ROUNDS):
        promote(home, version, uri, name=name)


def aliases(home: Path, uri: str, name: str) -> dict[str, str]:
    return {alias: version.version for version in models(home, uri, name) for alias in version.aliases}


def test_two_homes_on_one_store_promote_one_after_the_other(uri, tmp_path):
    registry_with(tmp_path / "a", uri, "shared", 2)
    processes = [
        FORKS.Process(target=promote_in_turn, args=(tmp_path / home, uri, "shared", version))
        for home, version in (("a", "1"), ("b", "2"))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    moves = history(tmp_path / "a", uri, name="shared")
    assert [move.number for move in moves] == list(range(1, len(moves) + 1))
    assert all(move.done for move in moves) and len(moves) >= 2
    assert [move.before for move in moves] == [None, *(move.after for move in moves[:-1])]
    assert aliases(tmp_path / "b", uri, "shared") == {
        "champion": moves[-1].after,
        "previous": moves[-1].before,
    }
    tags = Registry(Tracker(tmp_path / "a", uri), "shared").tags()
    assert not [key for key in tags if key.startswith(LOCK_TAG)]


def test_a_living_owner_is_waited_for_and_named_and_a_dead_one_is_not(uri, tmp_path, monkeypatch):
    registry = registry_with(tmp_path, uri, "locked", 1)
    monkeypatch.setattr(lock_module, "LOCK_SECONDS", 0.5)
    living = replace(Owner.me("someone"), host="elsewhere")
    for owner, seen, busy in (
        (living, time.time(), True),
        (living, time.time() - 2 * STALE_SECONDS, False),  # silent for too long
        (replace(living, host=socket.gethostname(), born=1.0), time.time(), False),  # a recycled process id
    ):
        text = json.dumps({**asdict(owner), "seen": seen})
        registry.set_tag(f"{LOCK_TAG}{owner.run_id}", text)
        if busy:
            with pytest.raises(
                StageBusy, match=f"'locked' in .* is being changed by process {owner.pid} on elsew"
            ):
                promote(tmp_path, "1", uri, name="locked")
        else:
            assert promote(tmp_path, "1", uri, name="locked").version == "1"
    registry.set_tag(f"{LOCK_TAG}x", "not json")  # nobody's
    assert promote(tmp_path, "1", uri, name="locked").version == "1"


def test_an_owner_whose_lock_was_taken_over_moves_nothing(uri, tmp_path):
    registry = registry_with(tmp_path, uri, "asleep", 1)
    with pytest.raises(StageFailed, match="the lock of 'asleep' was taken over"), changing(registry) as its:
        for key in [key for key in registry.tags() if key.startswith(LOCK_TAG)]:
            registry.tracker.client.delete_registered_model_tag("asleep", key)
        its.move(registry.version("1"), None)
    assert aliases(tmp_path, uri, "asleep") == {}


@pytest.mark.parametrize("fault", ["promote.after_intent", "promote.between_aliases", "promote.before_done"])
def test_a_move_that_was_killed_midway_is_finished_by_the_next_change_from_another_home(uri, tmp_path, fault):
    name = fault.replace(".", " ")
    registry_with(tmp_path, uri, name, 2)
    promote(tmp_path, "1", uri, name=name)
    for change, champion in ((partial(promote, tmp_path, "2"), "2"), (partial(rollback, tmp_path), "1")):
        assert status_at(fault, partial(change, uri, name=name)) == KILLED
        assert [move.done for move in history(tmp_path, uri, name=name)][-1] is False
        with changing(Registry(Tracker(tmp_path / "other", uri), name)):
            pass  # whatever it was going to do
        assert all(move.done for move in history(tmp_path, uri, name=name))
        assert aliases(tmp_path, uri, name)["champion"] == champion
    assert [(move.action, move.after) for move in history(tmp_path, uri, name=name)] == [
        ("promote", "1"),
        ("promote", "2"),
        ("rollback", "1"),
    ]
    assert aliases(tmp_path, uri, name) == {"champion": "1"}
