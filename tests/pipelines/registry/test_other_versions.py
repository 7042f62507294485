"""A registry that another version wrote, or that somebody edited: read, and named in one line."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from safetensors.numpy import save_file

from dags.cli.tables import print_history, print_models
from pipelines.errors import ConfigError, GateRefused
from pipelines.registry.champion import Promotion, history, promote, rollback, set_gate
from pipelines.registry.journal import CHANGE_TAG, champions
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import Registry, models, resolve
from pipelines.registry.model_version import FILES_TAG, QUALITY_TAG, WEIGHTS_TAG, ModelVersion
from pipelines.registry.quality import Quality
from pipelines.registry.stored_gate import GATE_TAG
from tests.pipelines.make_champion import make_champion

GOOD = Quality(1, {"prompt_following": 0.8, "frechet": 1.0, "judge_score": 0.3}, "p", "r")
FEWER = json.dumps({"steps": 1, "frechet": 1.0, "prompts": "p"})
MORE = json.dumps({**json.loads(GOOD.to_json()), "recall": 0.5, "prompt_following": 0.79})


@dataclass(frozen=True)
class Shelf:
    """One registered name in the HOME of all these tests; its versions are made by hand, with any tags."""

    home: Path
    name: str

    @property
    def registry(self) -> Registry:
        return Registry(Tracker(self.home), self.name)

    def add(self, tags: Mapping[str, str], *, champion: bool = False) -> str:
        """A new version with these tags; its model is packaged only if `package` is called."""
        client = self.registry.tracker.client
        with suppress(MlflowException):  # it exists already
            client.create_registered_model(self.name)
        made = client.create_model_version(self.name, source=str(self.home), tags=dict(tags))
        if champion:
            make_champion(self.registry, str(made.version))
        return str(made.version)

    def package(self, tags: Mapping[str, str], folder: Path) -> str:
        """A new version with these tags, as the promote stage registers one."""
        folder.mkdir()
        save_file({"w": np.ones((2, 2), np.float32)}, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
        registry = self.registry
        with registry.tracker.run("promote", self.name) as run:
            version = registry.register(folder, f"digest of {self.name}", run, steps=1, tags={})
        registry.describe(version, tags)
        return version.version

    def versions(self) -> list[ModelVersion]:
        return models(self.home, name=self.name)

    def notes(self) -> dict[str, tuple[str, ...]]:
        return {version.version: version.notes for version in self.versions()}

    def promote(self, version: str, **how: bool) -> Promotion:
        return promote(self.home, version, name=self.name, **how)

    def rollback(self) -> Promotion:
        return rollback(self.home, name=self.name)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def shelf(home: Path, request: pytest.FixtureRequest) -> Shelf:
    return Shelf(home, hashlib.sha256(request.node.name.encode()).hexdigest()[:12])


def test_versions_with_fewer_and_more_metrics_are_listed_promoted_and_rolled_back(shelf, capsys):
    shelf.add({QUALITY_TAG: FEWER}, champion=True)
    shelf.add({QUALITY_TAG: MORE})
    note = "its metrics are of another version of Straightshot"
    notes = shelf.notes()
    assert notes["2"][0] == f"version 2 of '{shelf.name}': {note} (also recall)"
    assert notes["1"][0].startswith(f"version 1 of '{shelf.name}': {note} (no reference, prompt_following,")
    print_models(shelf.versions())
    printed = capsys.readouterr().out
    assert notes["1"][0] in printed.splitlines() and notes["2"][0] in printed.splitlines()
    promotion = shelf.promote("2", first=True)
    assert (promotion.version, promotion.replaced, promotion.notes) == ("2", "1", notes["2"])
    checks = {check.text: check.passed for check in promotion.decision.checks}
    assert checks[notes["1"][0]] is None and checks[notes["2"][0]] is None
    assert shelf.rollback().notes == notes["1"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_champion_whose_metrics_cannot_be_read_is_replaced_only_as_the_first(shelf, text):
    shelf.add({QUALITY_TAG: text}, champion=True)
    shelf.add({QUALITY_TAG: GOOD.to_json()})
    note = shelf.notes()["1"][0]
    assert note.startswith(f"version 1 of '{shelf.name}': its metrics cannot be read")
    with pytest.raises(GateRefused, match=r"its metrics cannot be read.*promote it with --force") as refused:
        shelf.promote("1")
    assert "\n" not in str(refused.value)
    with pytest.raises(GateRefused, match=r"its metrics cannot be read.*`straightshot promote 2 --first`"):
        shelf.promote("2")
    assert shelf.promote("2", first=True).replaced == "1"
    assert shelf.rollback().version == "1"


def test_models_of_other_protocols_are_listed_apart(shelf, capsys):
    same = replace(GOOD, numbers={**GOOD.numbers, "prompt_following": 0.7})
    elsewhere = replace(GOOD, prompts="q", numbers={"prompt_following": 0.99})
    for quality in (GOOD, elsewhere, same):
        shelf.add({QUALITY_TAG: quality.to_json()})
    shelf.add({})
    print_models(shelf.versions())
    printed = capsys.readouterr().out.splitlines()
    titles = [line for line in printed if line.startswith(("Measured", "Not measured"))]
    assert titles == [
        "Not measured, or not known how:",
        "Measured by protocol p, 1 step:",
        "Measured by protocol q, 1 step:",
    ]
    start = printed.index(titles[1])
    assert [line.split()[0] for line in printed[start + 2 : start + 4]] == ["3", "1"]
    assert "0.700" in printed[start + 2] and "0.800" in printed[start + 3]
    assert "Numbers of different tables were measured otherwise: do not compare them." in printed


def test_a_gate_that_cannot_be_read_stops_promotions_until_it_is_set_again(shelf):
    shelf.add({QUALITY_TAG: GOOD.to_json()})
    shelf.registry.set_tag(GATE_TAG, "?")
    with pytest.raises(
        ConfigError, match=f"the gate stored with '{shelf.name}' .* cannot be read; set it again"
    ):
        shelf.promote("1")
    set_gate(shelf.home, lambda now: now, name=shelf.name)
    promotion = shelf.promote("1")
    assert "prompt following 0.800 ≥ 0.500 (min_prompt_following)" in [
        check.text for check in promotion.decision.checks
    ]


def test_a_model_is_generated_with_whatever_its_metrics_but_never_unverified(shelf, tmp_path):
    version = shelf.package({QUALITY_TAG: "?"}, tmp_path / "model")
    registry = shelf.registry
    folder = resolve(f"models:/{shelf.name}/{version}", shelf.home)
    made = (tmp_path / "model/model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == made
    registry.describe(registry.version(version), {FILES_TAG: "not json"})
    assert (
        shelf.notes()[version][-1] == f"version 1 of '{shelf.name}': the hashes of its files cannot be read"
    )
    with pytest.raises(ConfigError, match=rf"hashes of the files of models:/{shelf.name}/1 cannot be read"):
        resolve(f"models:/{shelf.name}/{version}", shelf.home)


def test_a_version_whose_weights_alone_were_hashed_is_verified_by_them(shelf, tmp_path):
    version = shelf.package({}, tmp_path / "model")
    registry = shelf.registry
    hashes = {
        "model.safetensors": hashlib.sha256((tmp_path / "model/model.safetensors").read_bytes()).hexdigest()
    }
    registry.describe(registry.version(version), {WEIGHTS_TAG: json.dumps(hashes)})
    registry.tracker.client.delete_model_version_tag(shelf.name, version, FILES_TAG)
    weights = resolve(f"models:/{shelf.name}/{version}", shelf.home) / "model.safetensors"
    weights.write_bytes(b"changed")
    with pytest.raises(ConfigError, match="is not as it was registered"):
        resolve(f"models:/{shelf.name}/{version}", shelf.home)


def test_champions_before_the_journal_are_known_by_their_aliases(shelf):
    """As an older version of Straightshot, or somebody on MLflow's page, set them."""
    for _ in range(2):
        shelf.add({QUALITY_TAG: GOOD.to_json()})
    client = shelf.registry.tracker.client
    client.set_registered_model_alias(shelf.name, "previous", "1")
    client.set_registered_model_alias(shelf.name, "champion", "2")
    assert shelf.rollback().version == "1"
    assert champions(history(shelf.home, name=shelf.name)) == ["1"]


def test_a_damaged_entry_of_the_journal_is_named_and_stops_nothing(shelf, capsys):
    shelf.add({QUALITY_TAG: GOOD.to_json()})
    shelf.promote("1")
    (entry,) = history(shelf.home, name=shelf.name)
    shelf.registry.tracker.client.set_tag(entry.run_id, CHANGE_TAG, '{"action": "prom')
    shelf.add({QUALITY_TAG: GOOD.to_json()})
    assert shelf.promote("2").replaced == "1"
    entries = history(shelf.home, name=shelf.name)
    assert [(entry.action, entry.after) for entry in entries] == [("unreadable", ""), ("promote", "2")]
    print_history(entries)
    assert "cannot be read" in " ".join(capsys.readouterr().out.split())
