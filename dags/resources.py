"""The resource of every asset: the run's settings, and the pipeline that they make.

The settings are the options of the command line, so that a run in Dagster's page shows how it was started and
can be started again there. Without any, the config of the last run under HOME is used.
"""

import dagster as dg
from pydantic import Field, PrivateAttr

from pipelines.config import RunConfig, load_config, ray_of, refuse_config, saved_config
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.pipeline import Pipeline
from pipelines.presets import DEFAULT_PRESET
from pipelines.store.home import open_home


class StraightshotRun(dg.ConfigurableResource):
    """One run of the DAG."""

    home: str = ""  # where outputs lie; empty: STRAIGHTSHOT_HOME, else ./runs
    preset: str = ""  # empty: the config of the last run under HOME, else the demo preset
    corpus: str = ""  # toy:N | parquet:PATH | folder:PATH | webdataset:PATH; empty: the preset's
    snapshot: str = ""  # the corpus snapshot; empty: the run's partition, else the preset's
    overrides: list[str] = Field(default=[])  # stage.field=value
    force: list[str] = Field(default=[])  # stages to run again although they are fresh
    ray: str = ""  # local | auto | HOST:PORT; empty: RAY_ADDRESS, else the preset's

    _pipeline: Pipeline | None = PrivateAttr(default=None)

    @property
    def pipeline(self) -> Pipeline:
        """The run's pipeline, the same for every asset of the run."""
        assert self._pipeline is not None, "the resource is used before its set-up"
        return self._pipeline

    def config(self) -> RunConfig:
        """The settings as one config. Raises ConfigError."""
        home = open_home(self.home)
        flags = {name: getattr(self, name) or None for name in ("corpus", "snapshot", "ray")}
        as_saved = not self.preset and not self.overrides
        if as_saved and (saved := saved_config(home, refuse_config)) is not None:
            return saved.model_copy(update={name: value for name, value in flags.items() if value})
        return load_config(self.preset or DEFAULT_PRESET, self.overrides, **flags)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        config = self.config()
        if not self.snapshot and context.run and (key := context.run.tags.get("dagster/partition")):
            config = config.model_copy(update={"snapshot": key})
        address = ray_of(config, self.overrides, self.ray or None)
        engine = Engine(address, config.workers, insecure=config.insecure)
        self._pipeline = Pipeline(config, open_home(self.home), engine, Progress())

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if self._pipeline is not None:
            self._pipeline.engine.shutdown()
