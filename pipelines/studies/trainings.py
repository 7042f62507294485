"""What a study that is not finished needs to go on: the configs of its trainings, under HOME.

    HOME/study/<name>.json: a list of configs; empty once the study has its table

gc reads it: none of these is the config of the last run, and a study may take days.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.config import RunConfig
from pipelines.config_draft import fit_to
from pipelines.errors import ConfigError
from pipelines.store.mirror import store_at

FOLDER = "study"


def note_trainings(home: Path, name: str, configs: Sequence[RunConfig]) -> None:
    """Say that the study `name` needs these trainings; none: that it needs none any more."""
    text = json.dumps([config.model_dump(mode="json") for config in configs])
    store_at(home / FOLDER).write(f"{name}.json", lambda path: path.write_text(text, encoding="utf-8"))


def noted_trainings(home: Path) -> Iterator[tuple[str, RunConfig]]:
    """(Study, config) of every training that an unfinished study needs. Raises ConfigError for a file that
    does not say it.
    """
    for path in sorted((home / FOLDER).glob("*.json")):
        try:
            configs = [fit_to(RunConfig, values)[0] for values in json.loads(path.read_bytes())]
        except (ValueError, TypeError, AttributeError):
            configs = [None]
        for config in configs:
            if config is None:
                raise ConfigError(f"{path}: damaged; run the study again, or remove the file if nobody will")
            yield path.stem, config
