"""MLflow runs: parameters, curves, artifacts and dataset digests of the stages that train or measure.

One MLflow run per (stage, fingerprint): a stage that was killed and runs again goes on in the same run, and a
point that is already there is not logged twice. MLflow takes seconds to import, so it is imported when a
tracker first needs it.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from components.errors import REASON_LENGTH, one_line
from pipelines.environment import set_defaults
from pipelines.errors import ConfigError, StageFailed
from pipelines.registry.mlflow_run import TrackedRun
from pipelines.store.mirror import remote_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "straightshot"
DATABASE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"
URI_VARIABLE = "MLFLOW_TRACKING_URI"
STAGE_TAG = "straightshot.stage"
FINGERPRINT_TAG = "straightshot.fingerprint"


class Tracker:
    """The MLflow of one HOME. uri: of a server or database; else MLFLOW_TRACKING_URI, else HOME's own."""

    def __init__(self, home: Path, uri: str | None = None) -> None:
        self.home = Path(home)
        chosen = absolute_uri(uri or os.environ.get(URI_VARIABLE) or "")
        self.uri = chosen or database_uri(self.home)
        self.own = not chosen or (remote_of(self.home) is None and chosen == database_uri(self.home))

    @property
    def empty(self) -> bool:
        """Whether nothing was ever tracked here. Does not make the database."""
        return self.own and not (self.home / DATABASE).exists()

    @contextmanager
    def run(
        self,
        stage: str,
        fingerprint: str,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        datasets: Mapping[str, str] | None = None,
    ) -> Iterator[TrackedRun]:
        """The one run of this stage's output: resumed if it was begun, else made.

        params: nested mappings become dotted names. datasets: name -> content digest, logged as inputs.
        Leaving marks the run FINISHED, an error FAILED, Ctrl-C KILLED; what was buffered is logged first.
        """
        with self.answering():
            run = self._begin(stage, fingerprint, tags or {})
            run.log_params(params or {})
            run.log_datasets(datasets or {})
        try:
            with self.answering():
                yield run
                run.flush()
        except BaseException as error:
            with suppress(Exception):  # the stage's own error is the one to report
                run.flush()
            with suppress(Exception):
                status = "FAILED" if isinstance(error, Exception) else "KILLED"
                self.client.set_terminated(run.id, status)
            raise
        with self.answering():
            self.client.set_terminated(run.id, "FINISHED")

    def find(self, stage: str, fingerprint: str) -> str | None:
        """The id of the run of this stage's output, if it was begun."""
        query = f"tags.`{STAGE_TAG}` = '{stage}' and tags.`{FINGERPRINT_TAG}` = '{fingerprint}'"
        runs = self.client.search_runs([self.experiment], query, order_by=["attributes.start_time ASC"])
        return str(runs[0].info.run_id) if runs else None

    @contextmanager
    def as_default(self) -> Iterator[None]:
        """Have MLflow's functions that take no client use this store; afterwards all is as it was."""
        import_mlflow()
        import mlflow

        before = os.environ.get(URI_VARIABLE)
        mlflow.set_tracking_uri(self.uri)
        try:
            yield
        finally:
            was: Any = before  # it accepts None, and unsets the variable then, though its signature does not
            mlflow.set_tracking_uri(was)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """An error of MLflow becomes one line. Raises StageFailed."""
        import_mlflow()
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise StageFailed(
                f"MLflow at '{self.uri}' failed ({one_line(error, REASON_LENGTH)}); finished work is kept:"
                " look at its log, then run again"
            ) from error

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client on this store. Raises ConfigError if it cannot be opened."""
        import_mlflow()
        from mlflow import MlflowClient

        with self._first_open():
            try:
                client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
                client.search_experiments(max_results=1)
            except Exception as error:  # the stores' own errors have no common base
                reason = one_line(error, REASON_LENGTH)
                raise ConfigError(
                    f"{self.home / DATABASE} does not open ({reason}); move it away to start a new one"
                    if self.own
                    else f"MLflow at '{self.uri}' does not answer ({reason}); start it, or unset"
                    f" {URI_VARIABLE} to use HOME's own"
                ) from error
        return client

    @cached_property
    def experiment(self) -> str:
        """The id of the experiment that holds every stage's run. Raises ConfigError if HOME was moved."""
        return self.experiment_named(EXPERIMENT)

    def experiment_named(self, name: str) -> str:
        """The id of an experiment, made if it is not there. Raises ConfigError if HOME was moved."""
        artifacts = (self.home.resolve() / ARTIFACTS).as_uri()
        client = self.client
        with self._first_open():
            experiment = client.get_experiment_by_name(name)
            if experiment is None:  # a server places its artifacts itself
                location = None if self.uri.startswith("http") else artifacts
                return str(client.create_experiment(name, artifact_location=location))
        if self.own and experiment.artifact_location != artifacts:
            raise ConfigError(
                f"{self.home / DATABASE} keeps its artifacts in {experiment.artifact_location}: this HOME was"
                f" moved or copied; use it where it was, or move {DATABASE} away to start a new one"
            )
        return str(experiment.experiment_id)

    @contextmanager
    def _first_open(self) -> Iterator[None]:
        """One process at a time: two that migrate a fresh database fail."""
        if not self.own:
            yield
            return
        guard = FileLock(self.home / f"{DATABASE}.lock")
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            guard.acquire()
        except OSError as error:
            raise ConfigError(
                f"{self.home} cannot be written ({error.strerror or error}); choose another --home"
            ) from error
        try:
            yield
        finally:
            guard.release()

    def _begin(self, stage: str, fingerprint: str, tags: Mapping[str, str]) -> TrackedRun:
        run_id = self.find(stage, fingerprint)
        if run_id is None:
            ours = {STAGE_TAG: stage, FINGERPRINT_TAG: fingerprint, "mlflow.source.name": "straightshot"}
            name = f"{stage} {fingerprint[:8]}"
            run_id = self.client.create_run(self.experiment, tags=ours, run_name=name).info.run_id
            run = TrackedRun(self.client, run_id)
        else:
            self.client.update_run(run_id, status="RUNNING")
            run = TrackedRun(self.client, run_id, resumed=True)
        run.set_tags(tags)
        return run


def database_uri(home: Path) -> str:
    """The address of HOME's own store. Raises ConfigError where SQLite cannot be: in a bucket."""
    if remote_of(home) is not None or "?" in str(home):
        raise ConfigError(
            f"MLflow's database cannot be in {remote_of(home) or home}; set {URI_VARIABLE} to an MLflow"
            " server, or use a local --home"
        )
    return f"sqlite:///{Path(home).resolve() / DATABASE}"


def absolute_uri(uri: str) -> str:
    """The address; a relative SQLite path in it is made absolute, so that HOME's own is recognised."""
    before, scheme, path = uri.partition("sqlite:///")
    return f"{scheme}{Path(path).resolve()}" if scheme and not before and path else uri


def import_mlflow() -> None:
    """Import MLflow quietly: no usage reports, no bars of its own, no notes about tables and addresses."""
    set_defaults()
    import mlflow  # noqa: F401  (its import sets its log level, so ours comes after)

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
