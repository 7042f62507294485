"""Promotion: the gate's verdicts, the aliases that follow, the history, rolling back, killed runs."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from components.evaluation.results import Evaluation, Metrics
from pipelines.errors import ConfigError, GateRefused
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.registry.champion import history, promote, rollback, set_gate, stored_gate
from pipelines.registry.journal import champions
from pipelines.registry.lineage import Lineage, descendants, lineage_of_version
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import models, registered_text, resolve
from pipelines.registry.repair import inspect
from pipelines.registry.stored_gate import with_limits
from pipelines.stage import Input, Stage, StageConfig, Work, run_stage
from pipelines.stages.promote import STAGE, PromoteConfig
from pipelines.store.receipts import PartReceipt, Receipt

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["mlflow"])
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


@pytest.fixture(scope="module", autouse=True)
def no_server() -> None:
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One HOME for the module; each test has a registered name of its own."""
    return tmp_path_factory.mktemp("home")


class ModelConfig(StageConfig):
    """A model whose measured quality is in its config.json."""

    seed: int = 0
    following: float = 0.8
    frechet: float = 1.0


class MeasureConfig(StageConfig):
    seed: int = 0  # of the prompts
    scale: float = 1.0  # what is measured of a model, as a share of what it says of itself
    prompts: int = 0  # of each form, with a verdict in a sample table; 0: no such table


def distill(work: Work) -> Iterable[PartReceipt]:
    """Writes a model folder whose weights are random, from the seed."""
    weights = {"w": np.random.default_rng(work.config.seed).normal(size=(4, 4)).astype(np.float32)}
    with work.folder("model") as folder:
        save_file(weights, folder / "model.safetensors")
        (folder / "config.json").write_text(work.config.model_dump_json())
        (folder / "tokenizer.json").write_text("{}")
    yield work.adopt("model")


def evaluate(work: Work) -> Iterable[PartReceipt]:
    """Writes the metrics of the model, by default and as is the same; the teacher has 0.8."""
    model = json.loads((work.input("distill").path / "model/config.json").read_text())
    score = model["following"] * work.config.scale
    metrics = {"frechet": 1.0, "judge_score": 0.3, "coverage": 0.3}
    half = {"short": 0.8, "long": 0.8}
    teacher = Evaluation("teacher", 50, 16, metrics, half, half)
    metrics = {**metrics, "frechet": model["frechet"]}
    reached = {"short": score, "long": score}
    student = Evaluation("student", 1, 16, metrics, reached, reached)
    text = Metrics((teacher, student), {"short": 1.0}, floors={"coverage": 0.25}).to_json()
    yield work.parts.write("metrics", {"metrics.json": lambda path: path.write_text(text)})
    if work.config.prompts:
        table = pa.Table.from_pylist(sample_rows(work.config.prompts, score))
        writers = {"samples/student-1.parquet": lambda path: pq.write_table(table, path)}
        yield work.parts.write("student-1", writers)


def sample_rows(prompts: int, score: float) -> list[dict[str, object]]:
    """A row of each prompt in each mode, right for the first prompts of each form."""
    each = [
        (form, mode, i) for form in ("short", "long") for mode in ("default", "as_is") for i in range(prompts)
    ]
    return [
        {
            "index": i,
            "form": form,
            "mode": mode,
            "model": "student",
            "steps": 1,
            "correct": i < score * prompts,
        }
        for form, mode, i in each
    ]


DISTILL = Stage("distill", 1, ModelConfig, (), distill)
EVALUATE = Stage("evaluate", 1, MeasureConfig, ("distill",), evaluate)


@dataclass(frozen=True)
class Team:
    """Runs distill, evaluate and promote under one registered name."""

    home: Path
    name: str

    def run(
        self,
        seed: int,
        following: float = 0.8,
        *,
        frechet=1.0,
        scale=1.0,
        prompts=0,
        force=False,
        **gate: object,
    ) -> Receipt:
        made = self._input(DISTILL, ModelConfig(seed=seed, following=following, frechet=frechet))
        measured = self._input(EVALUATE, MeasureConfig(scale=scale, prompts=prompts), distill=(made,))
        inputs = {"distill": (made,), "evaluate": (measured,)}
        config = PromoteConfig.model_validate({"registered_name": self.name, **gate})
        return self._run(STAGE, config, inputs, force=force)

    def holders(self) -> dict[str, str]:
        return {alias: v.version for v in models(self.home, name=self.name) for alias in v.aliases}

    def lines(self) -> list[tuple[str, str | None, str]]:
        found = [change for change in history(self.home, name=self.name) if change.action != "gate"]
        assert all(change.done for change in found)
        return [(change.action, change.before, change.after) for change in found]

    def _input(self, stage: Stage, config: StageConfig, **inputs: tuple[Input, ...]) -> Input:
        receipt = self._run(stage, config, inputs)
        return Input(stage.name, str(self.home / stage.name / receipt.fingerprint), receipt.digest, receipt)

    def _run(self, stage, config, inputs, *, force=False) -> Receipt:
        quiet = Progress(quiet=True)
        settings = {"home": self.home, "snapshot": "all", "engine": Engine(), "progress": quiet}
        return run_stage(stage, config, inputs, force=force, **settings)


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
        process = PROCESSES.Process(target=run_with_fault, args=(fault, killed))
        process.start()
        process.join(timeout=60)
        assert (fault, process.exitcode) == (fault, -signal.SIGKILL)
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
    assert registered_text(home, "champion", "model_card.md", name="card") == card
    assert lineage_of_version(home, "1", name="card") == lineage
    assert [made.stage for made in lineage.outputs] == ["distill", "evaluate"]
    distilled, evaluated = (made.fingerprint for made in lineage.outputs)
    assert distilled in receipt.input_fingerprints["distill"]
    assert [v.version for v in descendants(home, evaluated[:8], name="card")] == ["1"]
    with pytest.raises(ConfigError, match=r"no model 'card' in .* was made from 'evaluate'"):
        descendants(home, "evaluate", name="card")
    assert "| student, 1 step | 0.800 |" in card
    client = Tracker(home).client
    assert client.get_model_version("card", "1").description == card


def run_with_fault(fault: str, team: Team) -> None:
    os.environ["STRAIGHTSHOT_FAULT"] = fault
    team.run(seed=2)
