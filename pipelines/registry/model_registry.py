"""The model registry: versions, their aliases, and the way from a name to a model folder.

MLflow's aliases keep no history, so the champions' history is kept beside them, in a tag of the registered
model: rolling back twice goes back two champions. What another version of this project registered, with fewer
or more metrics, is read all the same; a version's `notes` say what is different.
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
from pipelines.registry.gate import GateConfig, read_gate
from pipelines.registry.mlflow_run import TrackedRun
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.packaging import log_served_model, model_folder, unpacked, weights_of
from pipelines.registry.quality import Quality
from pipelines.registry.verdicts import Verdicts, logged_verdicts
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
VERDICTS_TAG = "straightshot.verdicts"  # the id of the MLflow run with the verdicts behind the quality
CHAMPIONS_TAG = "straightshot.champions"  # of the registered model: versions, oldest first
CHAMPIONS_KEPT = 50


@dataclass(frozen=True)
class ModelVersion:
    """One registered model. `quality` and `gate` are None where it has none that can be read."""

    name: str
    version: str
    aliases: tuple[str, ...]
    created_at: str  # UTC, ISO 8601
    digest: str | None  # of the model folder's content
    weights: Mapping[str, str] | None  # of each file: relative path -> sha256; empty: they cannot be read
    quality: Quality | None
    gate: GateConfig | None
    run_id: str | None
    verdicts_run: str | None = None  # the MLflow run that has the verdicts behind `quality`
    notes: tuple[str, ...] = ()  # one line each: what cannot be read, or is of another version's form

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


def resolve(model: str, home: Path, uri: str | None = None, name: str = REGISTERED_NAME) -> Path:
    """The model folder of `model`: champion | challenger | previous | a version | models:/... | PATH.

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
            owner, _, reference = path.partition(separator)
            if owner and reference:
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
        registered = self._client.search_model_versions(f"name='{self.name}'", max_results=10_000)
        aliases = self._aliases()
        versions = (self._read(version, aliases) for version in registered)
        return sorted(versions, key=lambda version: -int(version.version))

    def version(self, reference: str) -> ModelVersion:
        """The version with this number or alias. Raises ConfigError that lists those there are."""
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

    def verdicts(self, version: ModelVersion) -> Verdicts | None:
        """What its quality was counted from, prompt by prompt; None where it is not at hand."""
        return logged_verdicts(self.tracker, version.verdicts_run) if version.verdicts_run else None

    def folder(self, reference: str) -> Path:
        """The local folder of a version's model, its weights verified; a remote one is fetched once."""
        version = self.version(reference)
        location = self._client.get_model_version_download_uri(self.name, version.version)
        folder = unpacked(self.tracker, location)
        if version.weights == {}:
            raise ConfigError(
                f"the hashes of the weights of {version.uri} cannot be read, so {folder} cannot be verified;"
                " choose another version, or run again with --force distill"
            )
        if version.weights is not None and version.weights != weights_of(folder):
            raise ConfigError(
                f"{folder} does not hold the weights that were registered as {version.uri}: they were changed"
                " or damaged; roll back, or run again with --force distill"
            )
        return folder

    def register(
        self, folder: Path, digest: str, run: TrackedRun, *, steps: int, tags: Mapping[str, str]
    ) -> ModelVersion:
        """Make the model folder a version. steps: the default of a request without `steps`."""
        weights = weights_of(folder)
        model_id = log_served_model(self.tracker, run, folder, weights=weights, steps=steps)
        fault_point("promote.before_version")
        ours = {DIGEST_TAG: digest, WEIGHTS_TAG: json.dumps(weights)}
        import mlflow

        # A server requires the model's id, which its own client cannot send; this function can.
        with self.tracker.as_default(), redirect_stderr(io.StringIO()):  # it prints what it registered
            registered = mlflow.register_model(f"models:/{model_id}", self.name, tags={**ours, **tags})
        return self.version(str(registered.version))

    def describe(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, version.version, key, value)

    def set_alias(self, alias: str, version: str) -> None:
        self._client.set_registered_model_alias(self.name, alias, version)

    def promote_alias(self, version: str) -> None:
        """Make it champion and the champion before it `previous`. Calling it again changes nothing more."""
        aliases = self._aliases()
        champion = aliases.get(CHAMPION)
        if champion not in (None, version):
            self.set_alias(PREVIOUS, champion)
        fault_point("promote.before_champion")
        self.set_alias(CHAMPION, version)
        history = self.champion_history()
        if champion is not None and history[-1:] not in ([champion], [version]):
            history.append(champion)  # somebody set the alias by hand
        if history[-1:] != [version]:
            self._set_champion_history([*history, version])

    def rollback(self) -> tuple[str, str]:
        """Make `previous` champion again; returns (the version that was, the version that is).

        Raises ConfigError if there is none to go back to.
        """
        aliases = self._aliases()
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if champion is None or previous is None:
            reason = f"version {champion} is the first champion" if champion else "there is no champion"
            raise ConfigError(f"nothing to roll back to: {reason} of '{self.name}' in {self.tracker.uri}")
        self.set_alias(CHAMPION, previous)
        fault_point("rollback.before_previous")
        history = self.champion_history()
        while history and history[-1] != previous:
            history.pop()
        if len(history) > 1:
            self.set_alias(PREVIOUS, history[-2])
        else:
            self._client.delete_registered_model_alias(self.name, PREVIOUS)
        self._set_champion_history(history or [previous])
        return champion, previous

    def champion_history(self) -> list[str]:
        """The champions' versions, the oldest first, without those that were rolled back.

        Empty where the tag was edited into something else: the aliases are then all that is known.
        """
        tags = self._client.get_registered_model(self.name).tags
        versions = _json_or_none(tags.get(CHAMPIONS_TAG, "[]"))
        return [str(version) for version in versions] if isinstance(versions, list) else []

    def _set_champion_history(self, versions: list[str]) -> None:
        text = json.dumps(versions[-CHAMPIONS_KEPT:])
        self._client.set_registered_model_tag(self.name, CHAMPIONS_TAG, text)

    def _aliases(self) -> dict[str, str]:
        """Alias -> version number."""
        from mlflow.exceptions import MlflowException

        try:
            aliases = self._client.get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {alias: str(version) for alias, version in aliases.items()}

    def _read(self, registered: "MlflowVersion", aliases: Mapping[str, str]) -> ModelVersion:
        """One version as MLflow has it; never raises for what its tags hold."""
        tags, number = registered.tags, str(registered.version)  # an int on SQLite
        notes: list[str] = []
        quality, gate, weights = None, None, None
        if QUALITY_TAG in tags:
            try:
                quality = Quality.from_json(tags[QUALITY_TAG])
                notes.append(quality.note)
            except ValueError as error:
                notes.append(f"its metrics cannot be read ({error})")
        if GATE_TAG in tags:
            gate, note = read_gate(tags[GATE_TAG])
            notes.append(note)
        if WEIGHTS_TAG in tags:
            hashes = _json_or_none(tags[WEIGHTS_TAG])
            weights = hashes if isinstance(hashes, dict) else {}
            notes.append("" if weights else "the hashes of its weights cannot be read")
        created = datetime.fromtimestamp(registered.creation_timestamp / 1000, UTC)
        return ModelVersion(
            name=self.name,
            version=number,
            aliases=tuple(sorted(alias for alias, holder in aliases.items() if holder == number)),
            created_at=created.isoformat(timespec="seconds"),
            digest=tags.get(DIGEST_TAG),
            weights=weights,
            quality=quality,
            gate=gate,
            run_id=registered.run_id,
            verdicts_run=tags.get(VERDICTS_TAG),
            notes=tuple(f"version {number} of '{self.name}': {note}" for note in notes if note),
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


def _json_or_none(text: str) -> Any:
    """The value of a JSON text; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


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
