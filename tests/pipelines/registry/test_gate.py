"""The gate: every rule on both sides of its limit, protocols that do not compare, other versions' metrics."""

import json
from dataclasses import replace

import pytest

from components.evaluation.bootstrap import Interval
from components.evaluation.metrics import METRICS
from components.evaluation.results import Evaluation, Metrics
from pipelines.errors import ConfigError
from pipelines.registry.gate import CHAMPION_RIVAL, RULES, Decision, GateConfig, Rival
from pipelines.registry.gate import decide as decide_beside
from pipelines.registry.quality import NUMBERS, Quality, quality_of
from pipelines.registry.stored_gate import StoredGate
from pipelines.store.receipts import Counts, Receipt

GATE = GateConfig()
OPEN = GateConfig(**{name: None for name in GateConfig.model_fields if name != "steps"})


def quality(prompts: str = "a", reference: str = "a", **numbers: float | None) -> Quality:
    measured = {
        "prompt_following": 0.9,
        "prompt_following_as_is": 0.8,
        "share_of_teacher": 1.0,
        "share_of_teacher_as_is": 1.0,
        "coverage_excess": 0.05,
        "frechet": 1.0,
        "judge_score": 0.3,
    }
    kept = {name: value for name, value in {**measured, **numbers}.items() if value is not None}
    return Quality(1, kept, prompts, reference)


def decide(candidate: Quality, champion: Quality | None, gate: GateConfig, *, differences=None) -> Decision:
    """Beside this champion and no other."""
    rival = Rival(CHAMPION_RIVAL, champion, lambda: differences or {}) if champion else None
    return decide_beside(candidate, rival, gate)


def receipt_of(**info: str) -> Receipt:
    return Receipt(
        stage="evaluate",
        version=2,
        snapshot="default",
        fingerprint="f",
        config={"seed": 0},
        inputs={"train": ["t"], "distill": ["d"], "shard": ["s"]},
        input_fingerprints={},
        libraries={},
        counts=Counts(),
        reasons={},
        info=info,
        files=(),
        digest="d",
        seconds=1.0,
        peak_rss_mb=1.0,
        finished_at="2026-11-24T00:00:00+00:00",
    )


@pytest.mark.parametrize(
    ("setting", "limit", "passing", "failing", "champion"),
    [
        ("min_prompt_following", 0.6, {"prompt_following": 0.6}, {"prompt_following": 0.59}, None),
        (
            "min_prompt_following_as_is",
            0.6,
            {"prompt_following_as_is": 0.6},
            {"prompt_following_as_is": 0.59},
            None,
        ),
        ("min_share_of_teacher", 0.8, {"share_of_teacher": 0.8}, {"share_of_teacher": 0.79}, None),
        (
            "min_share_of_teacher",
            0.8,
            {"share_of_teacher_as_is": 0.8},
            {"share_of_teacher_as_is": 0.79},
            None,
        ),
        ("max_coverage_excess", 0.1, {"coverage_excess": 0.1}, {"coverage_excess": 0.11}, None),
        ("max_frechet", 2.0, {"frechet": 2.0}, {"frechet": 2.01}, None),
        ("max_drop", 0.25, {"prompt_following": 0.5}, {"prompt_following": 0.49}, {"prompt_following": 0.75}),
        (
            "max_drop",
            0.25,
            {"prompt_following_as_is": 0.5},
            {"prompt_following_as_is": 0.49},
            {"prompt_following_as_is": 0.75},
        ),
        ("max_frechet_rise", 0.5, {"frechet": 6.0}, {"frechet": 6.1}, {"frechet": 4.0}),
    ],
)
def test_a_rule_passes_at_its_limit_and_fails_beyond_it(setting, limit, passing, failing, champion):
    gate = OPEN.model_copy(update={setting: limit})
    rival = quality(**champion) if champion else None
    assert [c.passed for c in decide(quality(**passing), rival, gate).checks if c.passed is not None]
    assert decide(quality(**passing), rival, gate).passed
    refused = decide(quality(**failing), rival, gate)
    (failed,) = (check for check in refused.checks if check.failed)
    assert f"({setting}" in failed.text and failed.text == refused.refusal


def test_every_limit_of_the_config_has_a_rule_and_every_rule_a_name_and_a_number():
    assert {rule.setting for rule in RULES} == set(GateConfig.model_fields) - {"steps"}
    assert {rule.number for rule in RULES} <= set(NUMBERS)
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    ("difference", "passed", "says"),
    [
        (Interval(-0.02, 0.01, -0.005), True, "no drop"),
        (Interval(-0.02, 0.0, -0.01), True, "no drop"),
        (Interval(-0.009, -0.001, -0.005), False, "certainly worse"),
        (Interval(-0.2, 0.1, -0.05), False, "a drop of more than 0.020"),
        (Interval(0.01, 0.05, 0.03), True, "no drop"),
    ],
)
@pytest.mark.parametrize(("mode", "name"), [("default", "max_drop"), ("as_is", "max_drop_as_is")])
def test_pairs_decide_where_there_are_some(difference, passed, says, mode, name):
    """Not the means: those are the same here, and in one case would hide a certain loss."""
    gate = OPEN.model_copy(update={"max_drop": 0.02})
    decision = decide(quality(), quality(), gate, differences={mode: difference})
    verdicts = {check.name: check for check in decision.checks}
    assert set(verdicts) == {"max_drop", "max_drop_as_is"}
    assert verdicts[name].passed is passed and says in verdicts[name].text
    assert decision.passed is passed
    assert f"[{difference.low:+.3f}, {difference.high:+.3f}]" in verdicts[name].text


def test_pairs_of_another_protocol_or_without_a_limit_are_not_asked():
    certain = {"default": Interval(-0.5, -0.3, -0.4)}
    assert [
        c.name for c in decide(quality(), quality("b"), GATE, differences=certain).checks if c.failed
    ] == ["champion"]
    unasked = decide(quality(), quality(), OPEN, differences=certain)
    assert [check.name for check in unasked.checks] == ["comparison"] and not unasked.passed


def test_a_limit_of_none_is_not_checked():
    gate = OPEN.model_copy(update={"max_coverage_excess": 1.0})
    (check,) = decide(quality(prompt_following=0.0, frechet=99.0), quality(), gate).checks
    assert check.name == "max_coverage_excess" and check.passed


def test_numbers_of_another_protocol_are_not_compared_and_replace_nobody_unless_as_the_first():
    champion = quality()
    worse = quality("b", "b", prompt_following=0.6, frechet=5.0)
    refused = decide(worse, champion, GATE)
    assert not refused.passed and "other prompts" in refused.refusal
    first = decide_beside(worse, Rival(CHAMPION_RIVAL, champion), GATE, first=True)
    assert first.passed and "other prompts" in first.checks[-1].text
    low = decide_beside(
        quality("b", "b", prompt_following=0.1), Rival(CHAMPION_RIVAL, champion), GATE, first=True
    )
    assert "0.100 < 0.500" in low.refusal  # the thresholds hold all the same
    other_images = decide(quality("a", "b", frechet=5.0), champion, GATE)
    assert [check.name for check in other_images.checks if check.passed is None] == ["max_frechet_rise"]
    assert other_images.passed
    assert decide(quality(frechet=5.0), champion, GATE).refusal == (
        "Fréchet distance 5 > 1.25 (max_frechet_rise; the champion has 1)"
    )


def test_a_gate_that_checks_nothing_replaces_nobody_unless_as_the_first():
    assert decide(quality(), None, OPEN).passed  # there is nobody to be replaced
    refused = decide(quality(), quality(), OPEN)
    assert refused.refusal == "the gate checks nothing that was measured of both models"
    assert decide_beside(quality(), Rival(CHAMPION_RIVAL, quality()), OPEN, first=True).passed


def test_the_best_of_earlier_champions_counts_by_each_number_and_only_of_the_same_protocol():
    champion = quality(prompt_following=0.86, frechet=1.2)
    followed = Rival("version 1", quality(prompt_following=0.9, frechet=2.0))
    near = Rival("version 2", quality(prompt_following=0.8, frechet=1.0))
    elsewhere = Rival("version 3", quality("b", "b", prompt_following=1.0, frechet=0.1))
    checks = {
        check.name: check
        for check in decide_beside(
            quality(prompt_following=0.85, frechet=1.3),
            Rival(CHAMPION_RIVAL, champion),
            GATE,
            earlier=(followed, near, elsewhere),
        ).checks
    }
    assert checks["max_drop"].passed and checks["max_frechet_rise"].passed
    assert (
        checks["max_drop_from_best"].text == "prompt following 0.850 < 0.880 (max_drop; version 1 has 0.900)"
    )
    assert checks["max_frechet_rise_from_best"].text == (
        "Fréchet distance 1.3 > 1.25 (max_frechet_rise; version 2 has 1)"
    )


def test_metrics_without_a_protocol_compare_with_nothing_not_even_each_other():
    unknown = quality("", "", frechet=5.0)
    assert [check.name for check in decide(unknown, quality("", ""), GATE).checks if check.failed] == [
        "champion"
    ]


def test_a_number_that_was_not_measured_is_skipped_and_said():
    unmeasured = quality(prompt_following=None, prompt_following_as_is=None, coverage_excess=None)
    decision = decide(unmeasured, None, GATE)
    assert decision.passed
    assert [(check.name, check.passed) for check in decision.checks] == [
        ("min_prompt_following", None),
        ("min_prompt_following_as_is", None),
        ("max_coverage_excess", None),
        ("champion", None),
    ]
    against = decide(quality(), quality(prompt_following=None), GATE)
    assert "the champion's prompt following was not measured" in [check.text for check in against.checks]


def test_the_decision_has_no_seconds_in_it():
    timed = quality(seconds_per_image=0.1, seconds_per_image_upsampled=0.2)
    slow = quality(seconds_per_image=9.0, seconds_per_image_upsampled=10.0)
    assert decide(timed, slow, GATE).as_dict() == decide(slow, timed, GATE).as_dict()
    assert "seconds" not in json.dumps(decide(timed, slow, GATE).as_dict())


def test_a_quality_comes_back_as_it_was_registered():
    written = quality(seconds_per_image=0.1, prompt_following=None)
    assert Quality.from_json(written.to_json()) == written
    assert Quality.from_json(written.to_json()).note == ""
    assert json.loads(written.to_json())["prompt_following"] is None


def test_metrics_of_another_version_are_read_with_a_note_of_what_differs():
    fields = json.loads(quality(seconds_per_image=0.1).to_json())
    del fields["judge_score"], fields["reference"]
    read = Quality.from_json(json.dumps({**fields, "recall": 0.5, "remark": "x"}))
    assert read.note == (
        "its metrics are of another version of Straightshot (no reference, judge_score; also recall, remark)"
    )
    assert read.numbers["recall"] == 0.5 and "judge_score" not in read.numbers
    assert read.reference == "" and read.prompts == "a"
    for text in ("", "[]", "null", "{"):
        with pytest.raises(ValueError):
            Quality.from_json(text)


def test_a_gate_of_another_version_is_read_with_a_note_of_what_is_not_checked():
    assert StoredGate.of(StoredGate(3, GATE).as_dict()) == StoredGate(3, GATE)
    limits = {"min_prompt_following": 0.7, "max_toxicity": 0.1}
    gate = StoredGate.of({"version": 1, "limits": limits})
    assert gate.limits == GateConfig(min_prompt_following=0.7)
    assert gate.note == "it also has max_toxicity, not checked by this version"
    for values in ({}, {"version": 1}, {"version": 1, "limits": {"steps": "many"}}, [1], None):
        with pytest.raises(ValueError, match="not a gate"):
            StoredGate.of(values)


def test_the_quality_is_the_students_at_the_steps_with_the_share_of_the_best_teacher():
    metrics = {metric.name: 0.5 for metric in METRICS}
    evaluations = (
        Evaluation("teacher", 10, 4, metrics, {"short": 0.5}, {"short": 0.5}),
        Evaluation("teacher", 50, 4, metrics, {"short": 0.8}, {"short": 0.4}),
        Evaluation("undistilled", 1, 4, metrics, {"short": 1.0}, {"short": 1.0}),
        Evaluation(
            "student",
            1,
            4,
            metrics,
            {"short": 0.6},
            {"short": 0.45},
            {"colors": 0.9},
            intervals={"prompt_following_as_is": Interval(0.4, 0.5, 0.45)},
            seconds_per_image=0.25,
        ),
    )
    protocol = {"prompts_digest": "p", "reference_digest": "r"}
    found = quality_of(Metrics(evaluations, {}, protocol, {"coverage": 0.125}), receipt_of(), 1)
    assert found.numbers == {
        "prompt_following": 0.6,
        "prompt_following_as_is": 0.45,
        "prompt_following_as_is_low": 0.4,
        "prompt_following_as_is_high": 0.5,
        "share_of_teacher": pytest.approx(0.75),
        "share_of_teacher_as_is": pytest.approx(0.9),
        "coverage_excess": 0.375,
        "seconds_per_image": 0.25,
        **metrics,
    }
    assert (found.prompts, found.reference) == ("p", "r")
    with pytest.raises(ConfigError, match=r"promote\.steps=2: evaluate measured the student at \[1\]"):
        quality_of(Metrics(evaluations, {}), receipt_of(), 2)


def test_an_evaluation_that_names_no_protocol_has_that_of_its_receipt_or_its_config():
    student = Evaluation("student", 1, 4, {"frechet": 1.0})
    metrics = Metrics((student,), {})
    named = quality_of(metrics, receipt_of(prompts_digest="p", reference_digest="r"), 1)
    assert (named.prompts, named.reference) == ("p", "r")
    computed = quality_of(metrics, receipt_of(), 1)
    same_models_aside = receipt_of().model_copy(update={"inputs": {"train": ["other"], "shard": ["s"]}})
    assert quality_of(metrics, same_models_aside, 1) == computed
    other_shards = receipt_of().model_copy(update={"inputs": {"shard": ["other"]}})
    assert quality_of(metrics, other_shards, 1) == replace(
        computed, reference=quality_of(metrics, other_shards, 1).reference
    )
    assert quality_of(metrics, other_shards, 1).reference != computed.reference
