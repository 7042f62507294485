"""The model registry: versions, their aliases, and the way from a name to a model folder.

`resolve` is what `straightshot generate --model` calls; promote.py registers through `Registry` and moves
its aliases. MLflow's aliases keep no history, so the succession of champions is kept beside them, in a tag
of the registered model: rolling back twice goes back two champions.
"""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pipelines.errors import ConfigError, StageBusy
from pipelines.registry.gate import GateConfig, Quality
from pipelines.registry.mlflow_run import TrackedRun
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.packaging import log_served_model, model_folder, unpacked, weights_of
from pipelines.store.faults import fault_point

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

REGISTERED_NAME = "straightshot"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
LOCK_SECONDS = 60  # a promotion takes a few seconds

DIGEST_TAG = "straightshot.digest"
WEIGHTS_TAG = "straightshot.weights"  # relative path -> sha256
QUALITY_TAG = "straightshot.quality"
GATE_TAG = "straightshot.gate"
SUCCESSION_TAG = "straightshot.champions"  # of the registered model: versions, oldest first
SUCCESSION_LENGTH = 50


@dataclass(frozen=True)
class ModelVersion:
    """One registered model. `quality` and `gate` are None for one that somebody registered by hand."""

    name: str
    version: str
    aliases: tuple[str, ...]
    created_at: str  # UTC, ISO 8601
    digest: str | None  # of the model folder's content
    weights: Mapping[str, str] | None  # of each file: relative path -> sha256
    quality: Quality | None
    gate: GateConfig | None
    run_id: str | None

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


def resolve(model: str, home: Path, uri: str | None = None, name: str = REGISTERED_NAME) -> Path:
    """The model folder that `model` names: champion | challenger | previous | a version | models:/... | PATH.

    Weights from the registry are compared with the hashes they were registered with. Raises ConfigError.
    """
    if not _is_reference(model):
        return model_folder(Path(model))
    tracker = _tracker(home, uri)
    with tracker.answering():
        if not model.startswith("models:/"):
            return Registry(tracker, name).folder(model)
        path = model.removeprefix("models:/")
        for separator in ("@", "/"):
            owner, found, reference = path.partition(separator)
            if found and owner and reference:
                return Registry(tracker, owner).folder(reference)
        return unpacked(tracker, _logged_model(tracker, path))


def models(home: Path, uri: str | None = None, name: str = REGISTERED_NAME) -> list[ModelVersion]:
    """Every registered version, the newest first; empty where nothing was registered."""
    tracker = Tracker(home, uri)
    if tracker.empty:
        return []
    with tracker.answering():
        return Registry(tracker, name).versions()


def registry_of(home: Path, uri: str | None = None, name: str = REGISTERED_NAME) -> "Registry":
    """The registry to look something up in. Raises ConfigError where nothing was ever registered."""
    return Registry(_tracker(home, uri), name)


class Registry:
    """The versions of one registered model."""

    def __init__(self, tracker: Tracker, name: str = REGISTERED_NAME) -> None:
        self.tracker = tracker
        self.name = name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the aliases: MLflow lets the last writer win. Raises StageBusy after a minute."""
        self.tracker.home.mkdir(parents=True, exist_ok=True)
        try:
            with (
                FileLock(self.tracker.home / "registry.lock", timeout=LOCK_SECONDS),
                self.tracker.answering(),
            ):
                yield
        except Timeout as error:
            raise StageBusy(f"the registry of {self.tracker.home} is being changed; run again") from error

    def versions(self) -> list[ModelVersion]:
        """Every version, the newest first."""
        found = self._client.search_model_versions(f"name='{self.name}'", max_results=10_000)
        aliases = self._aliases()
        return sorted((self._read(each, aliases) for each in found), key=lambda v: -int(v.version))

    def version(self, reference: str) -> ModelVersion:
        """The version with this number or alias. Raises ConfigError naming what there is."""
        aliases = self._aliases()
        number = aliases.get(reference, reference)
        for version in self.versions():
            if version.version == number:
                return version
        known = sorted(aliases) + [version.version for version in self.versions()]
        raise ConfigError(
            f"no '{reference}' among the models '{self.name}' in {self.tracker.uri}; there are"
            f" {', '.join(known) or 'none: `straightshot run` makes one'}"
        )

    def holder(self, alias: str) -> ModelVersion | None:
        """The version that has this alias."""
        return self.version(alias) if alias in self._aliases() else None

    def with_digest(self, digest: str) -> ModelVersion | None:
        """The version whose model folder has this content."""
        return next((version for version in self.versions() if version.digest == digest), None)

    def folder(self, reference: str) -> Path:
        """The local folder of a version's model, its weights verified; a remote one is fetched once."""
        version = self.version(reference)
        location = self._client.get_model_version_download_uri(self.name, version.version)
        folder = unpacked(self.tracker, location)
        if version.weights is not None and version.weights != weights_of(folder):
            raise ConfigError(
                f"{folder} does not hold the weights that were registered as {version.uri}: they were changed"
                " or damaged; roll back, or run again with --force distill"
            )
        return folder

    def register(
        self, folder: Path, digest: str, run: TrackedRun, *, steps: int, tags: Mapping[str, str]
    ) -> ModelVersion:
        """Make the model folder a version. steps: what a request that names none gets."""
        weights = weights_of(folder)
        model_id = log_served_model(self.tracker, run, folder, weights=weights, steps=steps)
        fault_point("promote.before_version")
        ours = {DIGEST_TAG: digest, WEIGHTS_TAG: json.dumps(weights)}
        import mlflow

        # Its own client cannot tell a server the model's id, which the server wants; this function can.
        with self.tracker.as_default(), redirect_stderr(io.StringIO()):  # it announces what it made
            made = mlflow.register_model(f"models:/{model_id}", self.name, tags={**ours, **tags})
        return self.version(str(made.version))

    def describe(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, version.version, key, value)

    def set_alias(self, alias: str, version: str) -> None:
        self._client.set_registered_model_alias(self.name, alias, version)

    def crown(self, version: str) -> None:
        """Make it champion and the champion before it `previous`. Calling it again changes nothing more."""
        aliases = self._aliases()
        champion = aliases.get(CHAMPION)
        if champion not in (None, version):
            self.set_alias(PREVIOUS, champion)
        fault_point("promote.before_champion")
        self.set_alias(CHAMPION, version)
        succession = self.succession()
        if champion is not None and succession[-1:] not in ([champion], [version]):
            succession.append(champion)  # somebody set the alias by hand
        if succession[-1:] != [version]:
            self._set_succession([*succession, version])

    def rollback_champion(self) -> tuple[str, str]:
        """Make `previous` champion again; returns (the version that was, the version that is).

        Raises ConfigError if there is none to go back to.
        """
        aliases = self._aliases()
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if champion is None or previous is None:
            there = f"version {champion} is the first champion" if champion else "there is no champion"
            raise ConfigError(f"nothing to roll back to: {there} of '{self.name}' in {self.tracker.uri}")
        self.set_alias(CHAMPION, previous)
        fault_point("rollback.before_previous")
        succession = self.succession()
        while succession and succession[-1] != previous:
            succession.pop()
        if len(succession) > 1:
            self.set_alias(PREVIOUS, succession[-2])
        else:
            self._client.delete_registered_model_alias(self.name, PREVIOUS)
        self._set_succession(succession or [previous])
        return champion, previous

    def succession(self) -> list[str]:
        """The champions' versions, the oldest first, without those that were rolled back."""
        tags = self._client.get_registered_model(self.name).tags
        found: list[str] = json.loads(tags.get(SUCCESSION_TAG, "[]"))
        return found

    def _set_succession(self, versions: list[str]) -> None:
        text = json.dumps(versions[-SUCCESSION_LENGTH:])
        self._client.set_registered_model_tag(self.name, SUCCESSION_TAG, text)

    def _aliases(self) -> dict[str, str]:
        """Alias -> version number."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {alias: str(version) for alias, version in found.items()}

    def _read(self, found: "MlflowVersion", aliases: Mapping[str, str]) -> ModelVersion:
        tags, number = found.tags, str(found.version)  # an int on SQLite
        quality, gate = tags.get(QUALITY_TAG), tags.get(GATE_TAG)
        created = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)
        return ModelVersion(
            name=self.name,
            version=number,
            aliases=tuple(sorted(alias for alias, holder in aliases.items() if holder == number)),
            created_at=created.isoformat(timespec="seconds"),
            digest=tags.get(DIGEST_TAG),
            weights=json.loads(tags[WEIGHTS_TAG]) if WEIGHTS_TAG in tags else None,
            quality=Quality.from_json(quality) if quality else None,
            gate=GateConfig.model_validate_json(gate) if gate else None,
            run_id=found.run_id,
        )

    @cached_property
    def _client(self) -> Any:
        return self.tracker.client


def _tracker(home: Path, uri: str | None) -> Tracker:
    """The tracker of a HOME that has been used; asking in another makes nothing there."""
    tracker = Tracker(home, uri)
    if tracker.empty:
        raise ConfigError(f"no model was registered under {home} yet; `straightshot run` makes one")
    return tracker


def _is_reference(model: str) -> bool:
    return model in ALIASES or model.isdecimal() or model.startswith("models:/")


def _logged_model(tracker: Tracker, model_id: str) -> str:
    """Where the artifacts of a logged model are; its id is what MLflow's page shows."""
    from mlflow.exceptions import MlflowException

    try:
        return str(tracker.client.get_logged_model(model_id).artifact_location)
    except MlflowException as error:
        raise ConfigError(
            f"no logged model '{model_id}' in {tracker.uri}; give models:/NAME@ALIAS, models:/NAME/VERSION or"
            " models:/ID"
        ) from error
