"""`gc` and `withdraw` as their user sees them, on a copy of a HOME where everything was run."""

import shutil
from pathlib import Path

import pytest

from components.shards.index import TRAIN
from components.shards.reader import read_split
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import REGISTERED_NAME


@pytest.fixture
def home(micro_home: Path, tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return shutil.copytree(micro_home, tmp_path / "home", ignore=shutil.ignore_patterns("mlflow-artifacts"))


@pytest.fixture
def unregistered(home: Path) -> Path:
    """The same without its registry, which knows that it was moved."""
    (home / "mlflow.db").unlink()
    return home


def test_gc_shows_what_goes_and_why_and_a_dry_run_deletes_nothing(straightshot, unregistered):
    home = unregistered
    abandoned = home / "train" / ("0" * 16)
    abandoned.mkdir()
    (abandoned / "half").write_bytes(bytes(3_000_000))
    for options, verdict in ((("--dry-run",), " would go, 3.0 MB; 9 stay"), ((), " to go, 3.0 MB; 9 stay")):
        assert abandoned.exists()
        result = straightshot("gc", *options, "--home", home)
        assert result.status == 0 and verdict in result.out
        assert f"train/{'0' * 16}" in result.out and "not of the last run's config" in result.out
    assert not abandoned.exists() and "deleted 3.0 MB" in result.out
    assert straightshot("gc", "--home", home).out.endswith("MB\n")  # nothing more to go
    assert straightshot("verify", "--home", home).status == 0
    assert straightshot("gc", "--keep", 0, "--home", home).status == 2
    assert straightshot("gc", "--home", home / "nowhere").status == 2


def test_withdraw_names_what_holds_the_record_and_models_says_so(straightshot, home):
    (shards,) = (home / "shard").glob("*/index.json")
    key = next(iter(read_split(shards, TRAIN))).key
    result = straightshot("withdraw", "--key", key, "--reason", "a letter", "--home", home)
    assert result.status == 0 and f"withdrawn: record {key}" in result.out
    assert "(challenger, champion): trained on 1 withdrawn; marked so" in result.out
    assert f"{shards.parent} holds 1 of them" in result.out
    said = "trained on 1 record that was withdrawn since"
    for command in (("models",), ("models", "--card", "champion"), ("lineage", "champion")):
        assert said in " ".join(straightshot(*command, "--home", home).out.split())
    assert said in Tracker(home).client.get_model_version(REGISTERED_NAME, "1").description
    assert straightshot("withdraw", "--key", "1234", "--home", home).status == 2
    purged = straightshot("withdraw", "--purge", "--home", home)
    assert f"shard/{shards.parent.name} deleted" in purged.out and not shards.exists()
    assert straightshot("status", "--home", home).status == 0
