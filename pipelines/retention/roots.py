"""What must stay under HOME: the outputs and downloads that somebody needs, each with the reason.

The roots are what living runs make or read, the last run's config, the trainings of unfinished studies, the
models in the registry that an alias or a rollback names, and the newest outputs; what they were made from
stays with them.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipelines.config import RunConfig, saved_config
from pipelines.errors import ConfigError
from pipelines.graph import SOURCES
from pipelines.pipeline import Pipeline
from pipelines.registry.journal import Journal, champions
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import Registry
from pipelines.registry.model_version import ModelVersion
from pipelines.registry.packaging import DOWNLOADS, download_name
from pipelines.retention.catalog import STAGE_FOLDERS, Catalog, Output, folders
from pipelines.sources import TOY_WEB, find_source
from pipelines.store.locks import owner_of
from pipelines.store.mirror import store_at
from pipelines.store.receipts import MODEL, content_digest
from pipelines.studies.trainings import noted_trainings


def reasons_to_stay(home: Path, catalog: Catalog, keep: int, uri: str | None = None) -> dict[Path, str]:
    """The folders that stay -> why; the first reason counts. keep: outputs of a stage for a snapshot.

    Raises StageFailed or ConfigError when the registry does not answer: what it needs is then not known.
    """
    reasons: dict[Path, str] = {}
    for roots in (
        in_progress(home),
        _of_models(home, catalog, uri),
        _of_config(home),
        _of_studies(home),
        _newest(catalog, keep),
    ):
        reasons = roots | reasons
    known = [catalog.outputs[path] for path in reasons if path in catalog.outputs]
    for output, consumer in catalog.upstream(known):
        reasons.setdefault(output.path, f"{consumer.name} was made from it")
    return reasons


def in_progress(home: Path) -> dict[Path, str]:
    """What living runs make or read. What they read of toy webs is not marked: then all of those stay."""
    reasons: dict[Path, str] = {}
    running = None
    for stage in STAGE_FOLDERS:
        store = store_at(home / stage)
        for key in store.keys(""):
            name, _, claim = key.partition(".")
            if not claim.startswith(("lock", "swap", "reader-")) or (owner := owner_of(store, key)) is None:
                continue
            running = owner
            reasons[home / stage / name] = (
                f"{'read' if claim.startswith('reader-') else 'being made'} by {owner}"
            )
    if running is not None:
        for path in folders(home / TOY_WEB.name):
            reasons.setdefault(path, f"{running} may read it")
    return reasons


def served_downloads(home: Path, uri: str | None = None) -> set[str]:
    """The folders under HOME/models of the versions that an alias or a rollback names."""
    if not (home / DOWNLOADS).is_dir():
        return set()
    used = _models_in_use(home, uri)
    return {download_name(registry.location(version)) for registry, version, _ in used}


def distilled_as(version: ModelVersion, catalog: Catalog) -> list[Output]:
    """The outputs of distill whose model folder was registered as this version, the newest first."""
    return [output for output in catalog.of("distill") if model_digest(output) == version.digest]


def model_digest(distilled: Output) -> str:
    """The content digest of the model folder in an output of distill, as it is registered."""
    return content_digest(distilled.receipt.files_in(MODEL))


def registries(home: Path, uri: str | None = None) -> list[Registry]:
    """Every registered model of the registry that this HOME uses; none where nothing was ever tracked."""
    tracker = Tracker(home, uri)
    if tracker.empty:
        return []
    names, token = [], None
    with tracker.answering():
        while True:
            page = tracker.client.search_registered_models(max_results=100, page_token=token)
            names += [model.name for model in page]
            if not (token := page.token):
                return [Registry(tracker, name) for name in names]


def _models_in_use(home: Path, uri: str | None) -> Iterator[tuple[Registry, ModelVersion, str]]:
    """The versions that somebody can ask for by an alias, now or after rollbacks -> by which."""
    for registry in registries(home, uri):
        with registry.tracker.answering():
            history = champions(Journal(registry.tracker).entries(registry.name))
            for version in registry.versions():
                if version.aliases or version.version in history:
                    roles = ", ".join(version.aliases) or "a champion before"
                    yield registry, version, f"version {version.version} of '{version.name}' ({roles})"


def _of_models(home: Path, catalog: Catalog, uri: str | None) -> dict[Path, str]:
    """What made the models in use: their distill output, and its newest evaluation and promotion."""
    reasons: dict[Path, str] = {}
    for _, version, why in _models_in_use(home, uri):
        for distilled in distilled_as(version, catalog):
            reasons.setdefault(distilled.path, why)
            for stage in ("evaluate", "promote"):
                digest = distilled.receipt.digest
                made = [o for o in catalog.of(stage) if digest in o.receipt.inputs.get("distill", ())]
                reasons |= {o.path: why for o in made[:1] if o.path not in reasons}
    return reasons


def _of_config(home: Path) -> dict[Path, str]:
    config = saved_config(home)
    return dict.fromkeys(_planned(config, home), "of the last run's config") if config else {}


def _of_studies(home: Path) -> dict[Path, str]:
    reasons: dict[Path, str] = {}
    for name, config in noted_trainings(home):
        reasons |= dict.fromkeys(_planned(config, home), f"of the study {name}, which is not finished")
    return reasons


def _planned(config: RunConfig, home: Path) -> list[Path]:
    """The outputs of a config's plan, finished or not, and the sources that it reads."""
    pipeline = Pipeline(config, home)
    paths = [planned.path for planned in pipeline.plan() if planned.path is not None]
    for name in SOURCES:
        with suppress(ConfigError):
            source = find_source(name, config, home)
            location = Path(source.location.partition(":")[2] or source.location) if source else home
            paths += [out for out in (location, *location.parents) if out.parent == home / TOY_WEB.name]
    with suppress(ConfigError):  # of the other snapshots that train reads, too
        paths += [item.path for item in pipeline.inputs.some_of("train", ["shard"])["shard"]]
    return paths


def _newest(catalog: Catalog, keep: int) -> dict[Path, str]:
    reasons: dict[Path, str] = {}
    seen = Counter[tuple[str, str]]()
    for stage in STAGE_FOLDERS:
        for output in catalog.of(stage):
            kind = (stage, output.receipt.snapshot)
            seen[kind] += 1
            if seen[kind] <= keep:
                reasons[output.path] = "the newest" if keep == 1 else f"of the newest {keep}"
    return reasons
