"""Distill, evaluate and promote under one registered name, in a moment: the models are random numbers."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from components.evaluation.results import Evaluation, Metrics
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.registry.champion import history
from pipelines.registry.model_registry import models
from pipelines.stage import Input, Stage, StageConfig, Work, run_stage
from pipelines.stages.promote import STAGE, PromoteConfig
from pipelines.store.receipts import PartReceipt, Receipt


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
