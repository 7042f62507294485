"""The model registry: versions, their aliases, and the way from a name to a model folder.

Which version is champion is decided in champion.py; here aliases are names that lead to versions.
"""

import io
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError
from pipelines.registry.mlflow_run import TrackedRun
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_version import (
    CARD_TAG,
    DIGEST_TAG,
    FILES_TAG,
    ModelVersion,
    read_version,
)
from pipelines.registry.packaging import (
    PACKAGE_COPIES,
    damaged_files,
    folder_within,
    hashes_of,
    is_remote,
    local_package,
    log_served_model,
    model_folder,
)
from pipelines.registry.registry_lock import RegistryLock, registry_lock
from pipelines.registry.verdicts import Verdicts, logged_verdicts
from pipelines.store.faults import fault_point
from pipelines.store.locks import Owner

REGISTERED_NAME = "straightshot"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
SCHEME = "models:/"  # of MLflow's addresses of models


def resolve(model: str, home: Path, uri: str | None = None, name: str = REGISTERED_NAME) -> Path:
    """The model folder of `model`: champion | challenger | previous | a version | models:/... | PATH.

    The files of a version are compared with the hashes they were registered with. Raises ConfigError.
    """
    registered = registered_reference(model, name)
    if registered is None and not model.startswith(SCHEME):
        return model_folder(Path(model))
    tracker = _tracker(home, uri)
    with tracker.answering():
        if registered is not None:
            return Registry(tracker, registered[0]).folder(registered[1])
        return folder_within(local_package(tracker, _logged_model(tracker, model.removeprefix(SCHEME))))


def registered_reference(model: str, name: str = REGISTERED_NAME) -> tuple[str, str] | None:
    """(registered name, alias or version) that `model` means; None for a folder or a logged model's id."""
    if is_version(model):
        return name, model
    if model.startswith(SCHEME):
        for separator in ("@", "/"):
            owner, _, reference = model.removeprefix(SCHEME).partition(separator)
            if owner and reference:
                return owner, reference
    return None


def models(home: Path, uri: str | None = None, name: str = REGISTERED_NAME) -> list[ModelVersion]:
    """Every registered version, the newest first; empty where nothing was registered."""
    tracker = Tracker(home, uri)
    if tracker.empty:
        return []
    with tracker.answering():
        return Registry(tracker, name).versions()


def champion_of(home: Path, uri: str | None = None, name: str = REGISTERED_NAME) -> str | None:
    """The version that is champion, by its alias alone; None where there is none."""
    tracker = Tracker(home, uri)
    if tracker.empty:
        return None
    with tracker.answering():
        return Registry(tracker, name).aliases().get(CHAMPION)


def registry_of(home: Path, uri: str | None = None, name: str = REGISTERED_NAME) -> "Registry":
    """The registry to look something up in. Raises ConfigError where nothing was ever registered."""
    return Registry(_tracker(home, uri), name)


class Registry:
    """The versions of one registered model."""

    def __init__(self, tracker: Tracker, name: str = REGISTERED_NAME) -> None:
        self.tracker = tracker
        self.name = name
        self._lock: RegistryLock | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the name: MLflow lets the last writer win. Raises StageBusy after a minute."""
        owner = Owner.me(uuid.uuid4().hex, f"the registry of '{self.name}'")
        with self.tracker.answering():
            self._create()
            with registry_lock(self._client, self.name, owner, self.tracker.uri) as self._lock:
                yield

    def still_locked(self) -> None:
        """Raise StageFailed where somebody took the lock over while this process slept."""
        assert self._lock is not None, "the registry is changed without its lock"
        self._lock.still_held()

    def exists(self) -> bool:
        """Whether anything was ever registered under the name."""
        return self._registered() is not None

    def tags(self) -> Mapping[str, str]:
        """Of the registered name itself."""
        registered = self._registered()
        return registered.tags if registered else {}

    def set_tag(self, key: str, value: str) -> None:
        """Set a tag of the registered name itself."""
        self._client.set_registered_model_tag(self.name, key, value)

    def versions(self) -> list[ModelVersion]:
        """Every version, the newest first."""
        registered = self._client.search_model_versions(f"name='{self.name}'", max_results=10_000)
        aliases = self.aliases()
        versions = (read_version(version, self.name, aliases) for version in registered)
        return sorted(versions, key=lambda version: -int(version.version))

    def version(self, reference: str) -> ModelVersion:
        """The version with this number or alias. Raises ConfigError that lists those there are."""
        aliases = self.aliases()
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
        return self.version(alias) if alias in self.aliases() else None

    def with_digest(self, digest: str) -> ModelVersion | None:
        """The version whose model folder has this content."""
        return next((version for version in self.versions() if version.digest == digest), None)

    def verdicts(self, version: ModelVersion) -> Verdicts | None:
        """What its quality was counted from, prompt by prompt; None where it is not at hand."""
        return logged_verdicts(self.tracker, version.verdicts_run) if version.verdicts_run else None

    def folder(self, reference: str) -> Path:
        """The local folder of a version's model, every file verified; a remote one is fetched once."""
        version = self.version(reference)
        package = self.package(version)
        if not version.files:
            raise ConfigError(
                f"the hashes of the files of {version.uri} cannot be read, so {package} cannot be verified;"
                " choose another version, or run again with --force distill"
            )
        if damaged := damaged_files(package, version.files):
            raise ConfigError(
                f"{package / damaged[0]} is not as it was registered in {version.uri}: changed or damaged;"
                " `straightshot models --repair` restores it"
            )
        return folder_within(package)

    def package(self, version: ModelVersion, downloads: Path | None = None) -> Path:
        """The local folder of the version's MLflow model; see local_package. Verifies nothing."""
        return local_package(self.tracker, self.location(version), downloads)

    def is_remote(self, version: ModelVersion) -> bool:
        """Whether the version's MLflow model lies on a server."""
        return is_remote(self.location(version))

    def location(self, version: ModelVersion) -> str:
        """The address of the version's MLflow model."""
        return str(self._client.get_model_version_download_uri(self.name, version.version))

    def register(
        self, folder: Path, digest: str, run: TrackedRun, *, steps: int, tags: Mapping[str, str]
    ) -> ModelVersion:
        """Make the model folder a version. steps: the default of a request without `steps`."""
        model_id = log_served_model(self.tracker, run, folder, steps=steps)
        package = local_package(self.tracker, _logged_model(self.tracker, model_id))
        for path in package.iterdir():
            if path.is_file():
                run.log_artifact(path, PACKAGE_COPIES)
        fault_point("promote.before_version")
        ours = {DIGEST_TAG: digest, FILES_TAG: json.dumps(hashes_of(package))}
        import mlflow

        # A server requires the model's id, which its own client cannot send; this function can.
        with self.tracker.as_default(), redirect_stderr(io.StringIO()):  # it prints what it registered
            registered = mlflow.register_model(f"models:/{model_id}", self.name, tags={**ours, **tags})
        return self.version(str(registered.version))

    def package_copies(self, version: ModelVersion, folder: Path) -> list[Path]:
        """The small files of its package as its run keeps them, fetched into `folder`."""
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            with self.tracker.as_default():
                address = f"runs:/{version.run_id}/{PACKAGE_COPIES}"
                mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(folder))
        except (MlflowException, OSError):  # an older version of this project kept none
            return []
        return [path for path in folder.rglob("*") if path.is_file()]

    def logged_text(self, version: ModelVersion, name: str) -> str | None:
        """A text that was logged with the version; None where there is none."""
        import mlflow
        from mlflow.exceptions import MlflowException

        run = self._client.get_model_version(self.name, version.version).tags.get(CARD_TAG)
        try:
            with self.tracker.as_default():
                return str(mlflow.artifacts.load_text(f"runs:/{run}/{name}")) if run else None
        except (MlflowException, OSError):
            return None

    def describe(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, version.version, key, value)

    def set_description(self, version: ModelVersion, text: str) -> None:
        """What MLflow's page shows of the version, in Markdown."""
        self._client.update_model_version(self.name, version.version, description=text)

    def set_alias(self, alias: str, version: str | None) -> None:
        """Have the alias lead to a version, or to none."""
        if version is not None:
            self._client.set_registered_model_alias(self.name, alias, version)
        elif alias in self.aliases():
            self._client.delete_registered_model_alias(self.name, alias)

    def aliases(self) -> dict[str, str]:
        """Alias -> version number."""
        registered = self._registered()
        return {alias: str(version) for alias, version in registered.aliases.items()} if registered else {}

    def _registered(self) -> Any:
        """MLflow's registered model of the name; None where there is none."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _create(self) -> None:
        """Have the name there; two processes may try at once."""
        from mlflow.exceptions import MlflowException

        try:
            if not self.exists():
                self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    @cached_property
    def _client(self) -> Any:
        return self.tracker.client


def _tracker(home: Path, uri: str | None) -> Tracker:
    """The tracker of a HOME that has been used; asking in another makes nothing there."""
    tracker = Tracker(home, uri)
    if tracker.empty:
        raise ConfigError(f"no model was registered under {home} yet; `straightshot run` makes one")
    return tracker


def is_version(text: str) -> bool:
    """Whether a text can only be an alias or a version's number."""
    return text in ALIASES or text.isdecimal()


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
