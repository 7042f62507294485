"""The resource of every asset: the run's settings, and the pipeline that they make.

The settings are the options of the command line, so that a run in Dagster's page shows how it was started and
can be started again there. Without any, the config of the last run under HOME is used; schedules and sensor
use the deployed one. Whatever its config, a partition is made of the corpus that it was registered with.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field, PrivateAttr

from dags.run_processes import mark_alerted, record_process
from pipelines.absence import notice_champion
from pipelines.alerts import alert, alerting
from pipelines.config import (
    RunConfig,
    config_of_snapshot,
    load_config,
    ray_of,
    refuse_config,
    saved_config,
)
from pipelines.deployment import deployment, training_on_finished_snapshots
from pipelines.execution.engine import Engine
from pipelines.execution.watchdog import WatchedProgress, watched
from pipelines.pipeline import Outcome, Pipeline
from pipelines.presets import DEFAULT_PRESET
from pipelines.stage import Input
from pipelines.store.home import open_home


class StraightshotRun(dg.ConfigurableResource):
    """One run of the DAG."""

    home: str = ""  # where outputs lie; empty: STRAIGHTSHOT_HOME, else ./runs
    deployed: bool = False  # the deployed config; its models are trained on all registered snapshots
    preset: str = ""  # empty: the config of the last run under HOME, else the demo preset
    corpus: str = (
        ""  # toy:N | urls:PATH | parquet:PATH | folder:PATH | webdataset:PATH; empty: the snapshot's
    )
    snapshot: str = ""  # the corpus snapshot; empty: the run's partition, else the preset's
    overrides: list[str] = Field(default=[])  # stage.field=value
    force: list[str] = Field(default=[])  # stages to run again although they are fresh
    ray: str = ""  # local | auto | HOST:PORT; empty: RAY_ADDRESS, else the preset's

    _pipeline: Pipeline | None = PrivateAttr(default=None)
    _recorded: tuple[dg.DagsterInstance, str] | None = PrivateAttr(default=None)  # the history, the run's id

    @property
    def pipeline(self) -> Pipeline:
        """The run's pipeline, the same for every asset of the run."""
        assert self._pipeline is not None, "the resource is used before its set-up"
        return self._pipeline

    def source(self, name: str) -> Input:
        """The corpus or the labelled set, there and registered. A failure is an alert."""
        with self._alerting(f"{name} of snapshot {self.pipeline.config.snapshot}"):
            return self.pipeline.register() if name == "corpus" else self.pipeline.source(name)

    def make(self, name: str) -> Outcome:
        """Make one stage's output, or find it made, within its time limits. A failure is an alert.

        Must be called where Ctrl-C raises KeyboardInterrupt.
        """
        pipeline, operations = self.pipeline, self.pipeline.config.operations
        assert isinstance(pipeline.progress, WatchedProgress)
        limits = {"most": operations.stage_seconds.get(name), "still": operations.stall_seconds}
        with (
            self._alerting(f"{name} of snapshot {pipeline.inputs.snapshot_of(name)}"),
            watched(name, pipeline.progress, **limits),
        ):
            outcome = pipeline.run_one(name, force=name in self.force)
        if name == "promote":
            notice_champion(pipeline.home, pipeline.config.promote.registered_name)
        return outcome

    def config(self, partition: str = "") -> RunConfig:
        """The settings as one config, for the run's partition if it has one. Raises ConfigError."""
        home = open_home(self.home)
        snapshot, corpus = self.snapshot or partition, self.corpus or None
        if self.deployed:
            base: RunConfig | None = deployment(home).config
        else:
            as_saved = not self.preset and not self.overrides
            base = saved_config(home, refuse_config) if as_saved else None
        if base is None:
            flags = {"corpus": corpus, "snapshot": snapshot or None, "ray": self.ray or None}
            return load_config(self.preset or DEFAULT_PRESET, self.overrides, home=home, **flags)
        if self.ray:
            base = base.model_copy(update={"ray": self.ray})
        return config_of_snapshot(base, home, snapshot or base.snapshot, corpus)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        partition = context.run.tags.get("dagster/partition", "") if context.run else ""
        if context.run is not None and context.instance is not None:
            self._recorded = (context.instance, context.run.run_id)
            record_process(*self._recorded)
        home = open_home(self.home)
        with self._alerting("the run's config"):
            config = self.config(partition)
        address = ray_of(config, self.overrides, self.ray or None)
        engine = Engine(address, config.workers, insecure=config.insecure)
        self._pipeline = Pipeline(config, home, engine, WatchedProgress())
        if self.deployed and not partition:
            with self._alerting("the models of all snapshots"):
                self._pipeline, left_out = training_on_finished_snapshots(self._pipeline)
            for name, why in left_out.items():
                line = f"snapshot {name} is left out: {why}"
                (context.log or dg.get_dagster_logger()).warning(line)
                alert(home, "snapshot_left_out", line)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if self._pipeline is not None:
            self._pipeline.engine.shutdown()

    @contextmanager
    def _alerting(self, what: str) -> Iterator[None]:
        """Within it, an error is an alert too, and the history says that it was sent."""
        try:
            with alerting(open_home(self.home), what):
                yield
        except Exception:
            if self._recorded is not None:
                mark_alerted(*self._recorded)
            raise
