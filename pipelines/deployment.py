"""The deployed config: what schedules and sensor run, HOME/deployed.yaml.

`straightshot deploy CONFIG` writes it, with who did and when; runs of the command never change it. Its data
half runs for every registered snapshot, its model half on all of them together.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from components.errors import one_line
from pipelines.config import RunConfig
from pipelines.config_draft import read_yaml
from pipelines.errors import ConfigError
from pipelines.pipeline import Pipeline
from pipelines.sources import find_source
from pipelines.store.mirror import store_at
from pipelines.store.provenance import now, user_and_host
from pipelines.store.receipts import json_digest

FILE = "deployed.yaml"
HEADER = "# What schedules and sensor run. Written by `straightshot deploy`, which is how to change it.\n"


@dataclass(frozen=True)
class Deployment:
    """A deployed config. by: user@host; at: UTC; digest: sha256 of the config."""

    config: RunConfig
    by: str
    at: str
    digest: str

    @property
    def time(self) -> float:
        """When it was deployed, seconds since the epoch."""
        return datetime.fromisoformat(self.at).timestamp()


def deploy(home: Path, config: RunConfig) -> Deployment:
    """Have schedules and sensor run this config from now on. Raises ConfigError for one that cannot run."""
    if config.train_snapshots:
        raise ConfigError(
            "train_snapshots: the deployed models are trained on all registered snapshots; remove it"
        )
    find_source("labelled", config, home)
    values = config.model_dump(mode="json")
    deployed = Deployment(config, user_and_host(), now(), json_digest(values))
    fields = {"by": deployed.by, "at": deployed.at, "digest": deployed.digest, "config": values}
    text = HEADER + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    store_at(home).write(FILE, lambda path: path.write_text(text, encoding="utf-8"))
    return deployed


def find_deployment(home: Path) -> Deployment | None:
    """What is deployed; None when nothing is. Raises ConfigError for a file that `deploy` did not write."""
    path = home / FILE
    if not path.exists():
        return None
    fields: dict[str, Any] = read_yaml(path)
    again = "deploy the config again: straightshot deploy CONFIG"
    try:
        values = fields["config"]
        if json_digest(values) != fields["digest"]:
            raise ConfigError(f"{path}: it was edited since it was deployed; {again}")
        config = RunConfig.model_validate(values)
        return Deployment(config, str(fields["by"]), str(fields["at"]), str(fields["digest"]))
    except (KeyError, TypeError, ValidationError) as error:
        raise ConfigError(
            f"{path}: damaged, or of another version ({one_line(error, 120)}); {again}"
        ) from error


def deployment(home: Path) -> Deployment:
    """What is deployed. Raises ConfigError when nothing is."""
    deployed = find_deployment(home)
    if deployed is None:
        raise ConfigError(f"nothing is deployed under {home}: straightshot deploy CONFIG --home {home}")
    return deployed


def training_on_finished_snapshots(pipeline: Pipeline) -> tuple[Pipeline, dict[str, str]]:
    """The pipeline with models that read every registered snapshot that has shards of its config.

    And the names of the others, each with why it has none. Raises ConfigError when no snapshot has any.
    """
    pipeline.source("labelled")
    finished, missing = pipeline.inputs.finished_snapshots()
    if not finished:
        reasons = "; ".join(missing.values()) or "no snapshot is registered"
        raise ConfigError(f"there is nothing to train on under {pipeline.home}: {reasons}")
    config = pipeline.config.model_copy(update={"train_snapshots": finished})
    return replace(pipeline, config=config), missing
