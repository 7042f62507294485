"""What `straightshot deploy` does and prints."""

from collections.abc import Iterable
from pathlib import Path

from pipelines.config import RunConfig, load_config
from pipelines.deployment import Deployment, deploy, find_deployment
from pipelines.errors import ConfigError
from pipelines.pipeline import Pipeline
from pipelines.planning.planned import changed_fields
from pipelines.snapshots import all_registered
from pipelines.store.home import home_path, open_home


def deploy_config(home: Path | None, config: str, overrides: Iterable[str]) -> list[str]:
    """Deploy a preset or a file; what it is and what it changes, in lines. Raises ConfigError."""
    from dags.schedules import refuse_bad_crons

    loaded, folder = load_config(config, overrides), open_home(home)
    refuse_bad_crons(loaded.operations)
    try:
        before = find_deployment(folder)
    except ConfigError:  # damaged or edited: this one takes its place
        before = None
    deployed = deploy(folder, loaded)
    return [
        *_lines(folder, deployed),
        *_changes(before.config if before else None, loaded),
        *_reload(before.config if before else None, loaded),
    ]


def deployed_lines(home: Path | None) -> list[str]:
    """What is deployed, in lines. Raises ConfigError for a file that `deploy` did not write."""
    folder = home_path(home)
    deployed = find_deployment(folder)
    if deployed is None:
        return [f"nothing is deployed under {folder}: schedules and sensor do nothing"]
    return _lines(folder, deployed)


def _lines(home: Path, deployed: Deployment) -> list[str]:
    config, operations = deployed.config, deployed.config.operations
    finished, missing = Pipeline(config, home).inputs.finished_snapshots()
    to_make = f"; to be made by this config: {', '.join(missing)}" if missing else ""
    return [
        f"deployed   {config.preset} {deployed.digest[:12]}, by {deployed.by} at {deployed.at[:19]}Z",
        f"data       of new snapshots by the sensor, of registered ones at '{operations.data_cron}' UTC",
        f"models     on all registered snapshots at '{operations.models_cron}' UTC",
        f"snapshots  {len(list(all_registered(home)))} registered, {len(finished)} ready{to_make}",
    ]


def _changes(before: RunConfig | None, config: RunConfig) -> list[str]:
    if before is None:
        return []
    names = changed_fields(before.model_dump(mode="json"), config.model_dump(mode="json"))
    return [f"changed    {', '.join(names) or 'nothing'}"]


def _reload(before: RunConfig | None, config: RunConfig) -> list[str]:
    """Dagster reads the schedules' times when it loads the code."""
    loaded, operations = (before or RunConfig()).operations, config.operations
    same = (loaded.data_cron, loaded.models_cron) == (operations.data_cron, operations.models_cron)
    return [] if same else ["times      count once Dagster's code is reloaded: restart `straightshot ui`"]
