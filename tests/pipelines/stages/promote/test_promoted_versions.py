"""Registered versions: registered once, rolled back, promoted by hand, killed, damaged; card and lineage."""

import shutil

import pytest

from pipelines.errors import ConfigError, GateRefused
from pipelines.registry.champion import history, promote, rollback
from pipelines.registry.journal import champions
from pipelines.registry.lineage import Lineage, descendants, is_registered, lineage_of_version
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_card import registered_card
from pipelines.registry.model_registry import models, resolve
from pipelines.registry.repair import inspect
from tests.forks import KILLED, STORES, imported_once, status_at
from tests.pipelines.stages.promote.promoting_team import Team

imported_once(*STORES)

FAULTS = (
    "promote.before_version",
    "promote.part.before_rename",
    "promote.part.before_receipt",
    "promote.before_intent",
    "promote.after_intent",
    "promote.between_aliases",
    "promote.before_done",
    "promote.receipt.before_rename",
)


def test_the_same_model_is_registered_once(home):
    team = Team(home, "once")
    first = team.run(seed=5)
    again = team.run(seed=5, force=True)
    assert len(models(home, name="once")) == 1
    assert again.digest == first.digest
    assert team.lines() == [("promote", None, "1")]
    team.run(seed=5, scale=0.9)  # the same model, measured otherwise: the same version
    (version,) = models(home, name="once")
    assert version.quality is not None
    assert version.quality.numbers["prompt_following"] == pytest.approx(0.72)


def test_rolling_back_twice_goes_back_two_champions_and_then_says_there_is_none(home):
    team = Team(home, "back")
    for seed in (1, 2, 3):
        team.run(seed)
    assert rollback(home, name="back").version == "2"
    assert team.holders() == {"champion": "2", "challenger": "3", "previous": "1"}
    assert rollback(home, name="back").version == "1"
    assert team.holders() == {"champion": "1", "challenger": "3"}
    with pytest.raises(ConfigError, match="nothing to roll back to: version 1 is the first champion"):
        rollback(home, name="back")
    assert team.lines()[3:] == [("rollback", "3", "2"), ("rollback", "2", "1")]
    with pytest.raises(ConfigError, match="there is no champion"):
        rollback(home, name="nobody")


def test_a_model_promoted_by_hand_goes_through_the_gate_unless_forced(home):
    team = Team(home, "hand")
    team.run(seed=1, following=0.8)
    with pytest.raises(GateRefused):
        team.run(seed=2, following=0.6)
    with pytest.raises(GateRefused, match="refused version 2"):
        promote(home, "challenger", name="hand")
    assert promote(home, "2", name="hand", force=True).replaced == "1"
    assert team.holders() == {"champion": "2", "challenger": "2", "previous": "1"}
    assert promote(home, "1", name="hand").moved  # the better one comes back without force
    assert not promote(home, "1", name="hand").moved
    assert team.lines()[2:] == [("force", "1", "2"), ("promote", "2", "1")]
    with pytest.raises(ConfigError, match=r"no '7' among .* challenger, champion, previous, 2, 1"):
        promote(home, "7", name="hand")


def test_a_promotion_killed_at_every_point_is_finished_by_the_same_command(home):
    killed, whole = Team(home, "killed"), Team(home, "whole")
    for team in (killed, whole):
        team.run(seed=1)
    for fault in FAULTS:  # each run goes on where the one before it was killed
        assert (fault, status_at(fault, killed.run, 2)) == (fault, KILLED)
    assert killed.run(seed=2).digest == whole.run(seed=2).digest  # the same bytes
    assert killed.holders() == whole.holders() == {"champion": "2", "challenger": "2", "previous": "1"}
    assert killed.lines() == whole.lines() == [("promote", None, "1"), ("promote", "1", "2")]
    assert champions(history(home, name="killed")) == ["1", "2"]


def test_a_damaged_version_is_restored_from_its_output_or_says_what_makes_it_again(home):
    team = Team(home, "damaged")
    team.run(seed=1)
    assert [i.damaged for i in inspect(home, name="damaged")] == [()]
    folder = resolve("models:/damaged/1", home)
    package = folder.parents[1]
    whole = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    for path in (folder / "model.safetensors", folder / "config.json", package / "MLmodel"):
        path.write_bytes(path.read_bytes()[:-1])
    (folder / "tokenizer.json").unlink()
    (package / "code/components/malloc.py").write_text("")
    (package / "extra.py").write_text("")
    (found,) = inspect(home, name="damaged")
    assert len(found.damaged) == 6 and found.restored == ()
    (repaired,) = inspect(home, name="damaged", repair=True)
    assert repaired.restored == found.damaged and repaired.advice == ""
    assert {path: path.read_bytes() for path in package.rglob("*") if path.is_file()} == whole
    assert resolve("models:/damaged/1", home) == folder
    made = [path.parents[1] for path in (home / "distill").glob("*/model/model.safetensors")]
    held = [
        out
        for out in made
        if (out / "model/model.safetensors").read_bytes() == whole[folder / "model.safetensors"]
    ]
    for out in held:
        shutil.rmtree(out)
    (folder / "model.safetensors").write_bytes(b"")
    (lost,) = inspect(home, name="damaged", repair=True)
    assert (
        lost.restored == () and "run --select +promote` makes the model again, of snapshot all" in lost.advice
    )
    team.run(seed=1, force=True)  # as it says: the damaged version is left, and the model has another one
    assert [(i.version.version, i.damaged) for i in inspect(home, name="damaged")] == [
        ("2", ()),
        ("1", ("artifacts/model/model.safetensors",)),
    ]


def test_card_and_lineage_lead_from_a_version_to_its_outputs_and_back(home):
    team = Team(home, "card")
    receipt = team.run(seed=11)
    out = home / "promote" / receipt.fingerprint
    card, lineage = (out / "model_card.md").read_text(), Lineage.from_json((out / "lineage.json").read_text())
    assert registered_card(home, "champion", name="card") == card
    assert lineage_of_version(home, "1", name="card")[1] == lineage
    assert is_registered(home, "1", name="card") and not is_registered(home, "20261120", name="card")
    assert [made.stage for made in lineage.outputs] == ["distill", "evaluate"]
    distilled, evaluated = (made.fingerprint for made in lineage.outputs)
    assert distilled in receipt.input_fingerprints["distill"]
    assert [v.version for v in descendants(home, evaluated[:8], name="card")] == ["1"]
    with pytest.raises(ConfigError, match=r"no model 'card' in .* was made from 'evaluate'"):
        descendants(home, "evaluate", name="card")
    assert "| student, 1 step | 0.800 |" in card
    client = Tracker(home).client
    assert client.get_model_version("card", "1").description == card
