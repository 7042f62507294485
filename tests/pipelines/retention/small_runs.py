"""Runs of the real graph and configs, with stages that write a line or a small model each, in no time."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from pipelines.config import load_config, save_config
from pipelines.graph import STAGES
from pipelines.pipeline import Pipeline
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import Registry
from pipelines.registry.model_version import DIGEST_TAG
from pipelines.retention.catalog import read_catalog
from pipelines.retention.roots import model_digest
from pipelines.stage import Work

NAMES = [stage.name for stage in STAGES]


def write_line(work: Work):
    """Output that depends on the config and on the content of the inputs."""
    digests = [(item.digest, item.withdrawn) for inputs in work.inputs.values() for item in inputs]
    text = f"{work.stage} {work.config.model_dump_json()} {digests}"
    if work.stage == "distill":
        return [_model(work, text)]
    return [work.parts.write("line", {"line.txt": lambda path: path.write_text(text)})]


def _model(work: Work, text: str):
    seed = int.from_bytes(text.encode()[-8:])
    with work.folder("model") as folder:
        weights = {"w": np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)}
        save_file(weights, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(text))
        (folder / "tokenizer.json").write_text("{}")
    return work.adopt("model")


def run(home: Path, *overrides: str, **flags) -> dict[str, Path]:
    """One run of everything, as the command would leave it; the stages' outputs."""
    config = load_config(
        "micro", ["toy.labelled=5", *overrides], corpus=flags.pop("corpus", "toy:20"), **flags
    )
    pipeline = Pipeline(config, home, stages=tuple(replace(stage, run=write_line) for stage in STAGES))
    pipeline.prepare()
    save_config(config, home)
    return {name: pipeline.run_one(name).path for name in NAMES}


def register(home: Path, outputs: dict[str, Path], *, packaged: bool = False) -> str:
    """The run's student as a version in the registry; a package that can be loaded only if asked for."""
    distilled = read_catalog(home).outputs[outputs["distill"]]
    registry, folder, digest = Registry(Tracker(home)), distilled.path / "model", model_digest(distilled)
    if packaged:
        with registry.tracker.run("promote", outputs["promote"].name) as tracked:
            return registry.register(folder, digest, tracked, steps=1, tags={}).version
    registered = registry.tracker.client.create_model_version(
        registry.name, source=folder.as_uri(), tags={DIGEST_TAG: digest}
    )
    return str(registered.version)
