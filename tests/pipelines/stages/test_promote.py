"""Promotion: the gate's verdicts, the aliases that follow, the history, rolling back, killed runs."""

import json
import multiprocessing
import os
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
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import Registry, models
from pipelines.stage import Input, Stage, StageConfig, Work, run_stage
from pipelines.stages.promote import STAGE, PromoteConfig, history, promote, rollback
from pipelines.store.receipts import PartReceipt, Receipt

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["mlflow"])
FAULTS = (
    "promote.before_version",
    "promote.part.before_rename",
    "promote.part.before_receipt",
    "promote.before_champion",
    "promote.before_log",
    "promote.history.before_rename",
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
        found = [line for line in history(self.home) if line["model"] == self.name]
        return [(line["action"], line["from"], line["to"]) for line in found]

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


def test_numbers_of_another_protocol_are_never_compared(home):
    team = Team(home, "protocols")
    team.run(seed=1, following=0.9, prompts=400)
    receipt = team.run(seed=2, following=0.6, prompts=401)  # worse, on other prompts
    (check,) = (c for c in decision_of(home, receipt)["checks"] if c["name"] == "champion")
    assert "measured on other prompts or steps" in check["text"]
    assert not [c for c in decision_of(home, receipt)["checks"] if c["name"].startswith("max_drop")]
    first, second = (line["protocol"] for line in history(home) if line["model"] == "protocols")
    assert first["prompts_digest"] != second["prompts_digest"]


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
        team.run(1, 0.4, steps=4)


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
    assert Registry(Tracker(home), "killed").champion_history() == ["1", "2"]


def run_with_fault(fault: str, team: Team) -> None:
    os.environ["STRAIGHTSHOT_FAULT"] = fault
    team.run(seed=2)
