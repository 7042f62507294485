"""Promotion: the gate's verdicts, the aliases that follow, and the history."""

import json
from pathlib import Path

import pytest

from pipelines.errors import ConfigError, GateRefused
from pipelines.registry.champion import history, promote, rollback, set_gate, stored_gate
from pipelines.registry.model_registry import models
from pipelines.registry.stored_gate import with_limits
from pipelines.store.receipts import Receipt
from tests.pipelines.stages.promote.promoting_team import Team


def decision_of(home: Path, receipt: Receipt) -> dict:
    return json.loads((home / "promote" / receipt.fingerprint / "decision.json").read_text())


def test_champions_follow_each_other_and_a_worse_candidate_stays_challenger(home):
    team = Team(home, "follow")
    first = team.run(seed=1, following=0.8)
    assert team.holders() == {"champion": "1", "challenger": "1"}
    assert decision_of(home, first)["verdict"] == "promoted"
    team.run(seed=2, following=0.79)  # within the allowed drop
    assert team.holders() == {"champion": "2", "challenger": "2", "previous": "1"}
    with pytest.raises(GateRefused, match=r"prompt following 0\.600 < 0\.770 \(max_drop") as refused:
        team.run(seed=3, following=0.6)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_status == 3
    assert team.holders() == {"champion": "2", "challenger": "3", "previous": "1"}
    with pytest.raises(GateRefused):
        team.run(seed=3, following=0.6)  # run again: nothing is registered or written down twice
    assert team.lines() == [("promote", None, "1"), ("promote", "1", "2"), ("refuse", "2", "3")]
    assert len(models(home, name="follow")) == 3


def test_a_model_that_is_certainly_worse_prompt_by_prompt_is_refused_within_the_allowed_drop(home):
    """0.790 against 0.800 passes by its mean; over the same prompts it is never better, and worse on some."""
    team = Team(home, "pairs")
    team.run(seed=1, following=0.8, prompts=500)
    with pytest.raises(GateRefused) as refused:
        team.run(seed=2, following=0.79, prompts=500)
    for label in ("prompt following 0.790", "prompt following as is 0.790"):
        assert f"{label}, the champion's 0.800: -0.010 [-0.0" in str(refused.value)
    assert "in pairs, certainly worse (max_drop 0.02)" in str(refused.value)
    team.run(seed=3, following=0.8, prompts=500)  # as good: the interval is [0, 0]
    assert team.holders()["champion"] == "3"
    with pytest.raises(GateRefused, match=r"a drop of more than 0\.020 \(max_drop"):
        team.run(seed=4, following=0.7, prompts=500)


def test_a_champion_without_verdicts_of_these_prompts_is_compared_by_its_mean(home):
    team = Team(home, "no pairs")
    team.run(seed=1, following=0.8, prompts=500)
    team.run(seed=1, following=0.8, prompts=0)  # registered again, its verdicts are gone
    receipt = team.run(seed=2, following=0.79, prompts=0)
    checks = {check["name"]: check["text"] for check in decision_of(home, receipt)["checks"]}
    assert checks["max_drop"] == "prompt following 0.790 ≥ 0.780 (max_drop; the champion has 0.800)"
    assert team.holders()["champion"] == "2"


def test_numbers_of_another_protocol_are_never_compared_and_replace_nobody_unasked(home):
    team = Team(home, "protocols")
    team.run(seed=1, following=0.97, prompts=400)
    with pytest.raises(
        GateRefused, match=r"measured on other prompts or steps.*`straightshot promote 2 --first`"
    ):
        team.run(seed=2, following=0.6, prompts=401, min_prompt_following=0.0)
    assert team.holders() == {"champion": "1", "challenger": "2"}
    promotion = promote(home, "2", name="protocols", first=True)
    assert (promotion.version, promotion.replaced) == ("2", "1")
    assert not [check for check in promotion.decision.checks if check.name.startswith("max_drop")]
    first, _, second = (c.protocol for c in history(home, name="protocols") if c.action != "gate")
    assert first["prompts_digest"] != second["prompts_digest"]
    team.run(seed=2, following=0.6, prompts=401)  # it is champion: the DAG goes on
    assert team.lines()[-1] == ("first", "1", "2")


def test_the_gate_is_the_names_and_not_the_candidates(home):
    """A careless experiment with limits of its own does not lower those of the champion's name."""
    team = Team(home, "own gate")
    team.run(seed=1, following=0.8, max_drop=0.5)
    with pytest.raises(GateRefused, match=r"prompt following 0\.400 < 0\.500 \(min_prompt_following\)"):
        team.run(
            seed=2, following=0.4, min_prompt_following=0.0, min_prompt_following_as_is=0.0, max_drop=1.0
        )
    gate = set_gate(home, lambda now: with_limits(now, ["min_prompt_following=0.1"]), name="own gate")
    assert (gate.version, gate.limits.max_drop, gate.limits.min_prompt_following) == (2, 0.5, 0.1)
    assert stored_gate(home, name="own gate") == gate
    team.run(seed=2, following=0.4)
    assert team.holders()["champion"] == "2"
    assert [dict(c.gate)["version"] for c in history(home, name="own gate") if c.action == "gate"] == [1, 2]
    with pytest.raises(ConfigError, match=r"gate set min_following=1: .*min_prompt_following"):
        set_gate(home, lambda now: with_limits(now, ["min_following=1"]), name="own gate")


def test_beside_a_champion_without_a_gate_the_default_one_counts_and_not_the_candidates(home):
    team = Team(home, "by hand")
    with pytest.raises(GateRefused):
        team.run(seed=1, following=0.4)
    assert promote(home, "1", name="by hand", force=True).moved
    assert stored_gate(home, name="by hand") is None
    none_asked = {"min_prompt_following": 0.0, "min_prompt_following_as_is": 0.0, "max_drop": 1.0}
    with pytest.raises(GateRefused, match=r"prompt following 0\.450 < 0\.500 \(min_prompt_following\)"):
        team.run(seed=2, following=0.45, **none_asked)
    assert team.holders()["champion"] == "1"


def test_small_drops_do_not_add_up(home):
    """Each of these is within 0.02 of the one before; the third is not within 0.02 of the best."""
    team = Team(home, "slope")
    team.run(seed=1, following=0.8)
    team.run(seed=2, following=0.79)
    with pytest.raises(
        GateRefused, match=r"prompt following 0\.775 < 0\.780 \(max_drop; version 1 has 0\.800\)"
    ):
        team.run(seed=3, following=0.775)
    assert team.holders()["champion"] == "2"


def test_a_rolled_back_model_stays_barred_until_it_is_forced(home):
    """Evaluating it again changes the fingerprint of promote, which then runs again."""
    team = Team(home, "barred")
    team.run(seed=1, following=0.8)
    team.run(seed=2, following=0.9)
    rollback(home, name="barred")
    with pytest.raises(GateRefused, match=r"version 2 was rolled back at .* by .*; version 1 stays champion"):
        team.run(seed=2, following=0.9, scale=1.01)
    with pytest.raises(GateRefused, match="promote 2 --force"):
        promote(home, "2", name="barred")
    assert team.holders()["champion"] == "1"
    assert promote(home, "2", name="barred", force=True).moved
    rollback(home, name="barred")
    with pytest.raises(GateRefused, match="was rolled back"):
        promote(home, "2", name="barred")


def test_the_thresholds_hold_without_a_champion_and_each_failed_one_is_named_with_its_numbers(home):
    team = Team(home, "thresholds")
    with pytest.raises(GateRefused) as refused:
        limits = {"max_frechet": 2.0, "min_share_of_teacher": 0.95, "max_coverage_excess": 0.04}
        team.run(1, 0.4, frechet=9.0, min_prompt_following_as_is=0.45, **limits)
    for part in (
        "prompt following 0.400 < 0.500 (min_prompt_following)",
        "prompt following as is 0.400 < 0.450 (min_prompt_following_as_is)",
        "share of the teacher's 0.500 < 0.950 (min_share_of_teacher)",
        "share of the teacher's as is 0.500 < 0.950 (min_share_of_teacher)",
        "coverage distance above its floor 0.050 > 0.040 (max_coverage_excess)",
        "Fréchet distance 9 > 2 (max_frechet)",
        "there is no champion",
    ):
        assert part in str(refused.value)
    assert team.holders() == {"challenger": "1"}
    with pytest.raises(ConfigError, match=r"promote\.steps=4: evaluate measured the student at \[1\]"):
        team.run(1, 0.9, steps=4)
    assert stored_gate(home, name="thresholds") is None
