"""The real graph and configs, with stages that write a line each."""

import json
from dataclasses import replace
from pathlib import Path

from pipelines.config import load_config
from pipelines.graph import STAGES
from pipelines.pipeline import Pipeline
from pipelines.stage import Work

NAMES = [stage.name for stage in STAGES]


def write_line(work: Work):
    """Output that depends on the config and on the content of the inputs."""
    digests = [item.digest for inputs in work.inputs.values() for item in inputs]
    text = f"{work.stage} {work.config.model_dump_json()} {digests}"
    return [work.parts.write("line", {"line.txt": lambda path: path.write_text(text)})]


def write_the_same(work: Work):
    """Output that depends on nothing."""
    return [work.parts.write("line", {"line.txt": lambda path: path.write_text("the same")})]


def pipeline(home: Path, overrides=(), *, constant=(), corpus="toy:20", **flags) -> Pipeline:
    config = load_config("micro", ["toy.labelled=5", *overrides], corpus=corpus, **flags)
    stages = tuple(replace(s, run=write_the_same if s.name in constant else write_line) for s in STAGES)
    return Pipeline(config, home, stages=stages)


def run(made: Pipeline, names=NAMES) -> list[str]:
    """Run the stages; the names of those that had something to do."""
    made.prepare()
    return [name for name in names if made.run_one(name).ran]


def states(made: Pipeline) -> dict[str, str]:
    return {planned.stage.name: planned.state.value for planned in made.plan()}


def why(made: Pipeline, name: str) -> str:
    return next(planned.why for planned in made.plan() if planned.stage.name == name)


def digests(home: Path, stage: str) -> list[str]:
    """The digests of a stage's outputs."""
    return [json.loads(path.read_text())["digest"] for path in home.glob(f"{stage}/*/receipt.json")]
