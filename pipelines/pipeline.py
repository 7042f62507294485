"""The pipeline: the stages in order, what of them is fresh, and how one of them is run.

    annotators -> (fetch ->) filter -> recaption -> shard -> train -> distill -> evaluate -> promote

The command plans with it (`Pipeline.plan`), the DAG runs with it (`Pipeline.run_one`). Freshness is decided
here and only here, by the fingerprints of stage.py: an input counts by the digest of its content, so an
upstream that ran again and made the same bytes stops the change there (early cut-off).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from components.errors import InputError
from pipelines.config import RunConfig
from pipelines.errors import ConfigError
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.graph import DATA_STAGES, EVERY_SNAPSHOT, EVERY_STAGE, FETCH, SOURCES, upstream
from pipelines.planning.past_outputs import PastOutputs, why_it_does_not_count
from pipelines.planning.planned import Planned, State, changes_since
from pipelines.registry.mlflow_store import Tracker
from pipelines.snapshots import Snapshot, all_registered, refuse_other_corpus, register, registered
from pipelines.sources import find_source, make_toy_web
from pipelines.stage import MODELS, NO_OUTPUTS, Input, Stage, StageConfig, fingerprint, run_stage
from pipelines.stages.fetch import is_urls
from pipelines.stages.filter import FilterConfig
from pipelines.store.locks import lock_owner
from pipelines.store.outputs import load_receipt, read_failure
from pipelines.store.receipts import RECEIPT, Receipt
from pipelines.withdrawals import less_withdrawn


@dataclass(frozen=True)
class Outcome:
    """One stage after `run_one`: its receipt, and whether it was made now or found made."""

    stage: str
    receipt: Receipt
    path: Path
    ran: bool


@dataclass
class Pipeline:
    """The stages under one config and HOME. Outputs found complete are remembered."""

    config: RunConfig
    home: Path
    engine: Engine = field(default_factory=Engine)
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))
    tracking_uri: str | None = None
    stages: tuple[Stage, ...] = EVERY_STAGE
    _known: dict[str, Input] = field(default_factory=dict, repr=False)

    @cached_property
    def past(self) -> PastOutputs:
        """What earlier runs left under HOME."""
        return PastOutputs(self.home, self.progress)

    def plan(self) -> list[Planned]:
        """Every stage's state, in order. Reads only; never makes anything."""
        planned: dict[str, Planned] = {}
        for stage in self.stages:
            if stage.name != FETCH.name or self.fetches:
                planned[stage.name] = self._plan_one(stage, planned)
        return list(planned.values())

    @property
    def fetches(self) -> bool:
        """Whether the corpus is a list of URLs, so that fetch is one of the stages."""
        return is_urls(self.config.corpus)

    def run_one(self, name: str, *, force: bool = False) -> Outcome:
        """Make one stage's output, or find it made. Raises ConfigError when an input is not there yet."""
        stage = self._stage(name)
        if "corpus" in stage.inputs:
            self.register()
        inputs = self._inputs_of(stage)
        out = self._out(stage, inputs)
        finished = load_receipt(out, verify=False)
        receipt = run_stage(
            stage,
            self._config_of(stage),
            inputs,
            home=self.home,
            snapshot=self.snapshot_of(stage.name),
            engine=self.engine,
            progress=self.progress,
            tracking_uri=self.tracking_uri,
            force=force,
        )
        self._known[name] = Input(name, str(out), receipt.digest, receipt)
        outcome = Outcome(name, receipt, out, ran=receipt != finished)
        self.progress.say(_summary(outcome))
        return outcome

    def prepare(self) -> None:
        """Have every source there: write the toy web if this run wants one. Raises ConfigError.

        Also where HOME is in a bucket and no MLflow is named: better now than after the data stages.
        """
        Tracker(self.home, self.tracking_uri)
        self.refuse_other_corpus()
        for name in SOURCES:
            if any(name in stage.inputs for stage in self.stages):
                self.source(name)

    def inputs_of(self, name: str, only: Iterable[str]) -> dict[str, tuple[Input, ...]]:
        """Some finished inputs of a stage, by name. Raises ConfigError for one that is not up to date."""
        stage = self._stage(name)
        return {source: self._inputs_for(stage, source) for source in only}

    def source(self, name: str) -> Input:
        """The corpus or the labelled set; a toy web is written if it is not there yet."""
        if name == "corpus":
            self.refuse_other_corpus()
        if name not in self._known and find_source(name, self.config, self.home) is None:
            make_toy_web(self.config, self.home, self.engine, self.progress)
        return self._source(name)

    def register(self) -> Input:
        """Record that the run's snapshot means this corpus, which is returned. ConfigError for another."""
        name, corpus = self.config.snapshot, self.source("corpus")
        register(self.home, name, self.config.corpus, corpus.digest, replace=not self.past.any_of(name))
        return corpus

    def refuse_other_corpus(self, digest: str | None = None) -> None:
        """Raise ConfigError if the run's snapshot was made of another corpus than the run's.

        digest: of the run's corpus, to compare its content as well.
        """
        snapshot = registered(self.home, self.config.snapshot)
        if snapshot is not None and self.past.any_of(snapshot.name):
            refuse_other_corpus(snapshot, self.config.corpus, digest)

    def refuse_missing_snapshots(self) -> None:
        """Raise ConfigError for another snapshot that train is to read and that has no shards of this config.

        While the annotators, on which every output depends, are still to be made, being registered is enough.
        """
        for snapshot in self.config.snapshots:
            if snapshot != self.config.snapshot:
                self._record_of("shard", snapshot)
                if "annotators" in self._known:
                    self._of_snapshot("shard", snapshot)

    def finished_snapshots(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """The registered snapshots with shards of this config, and of the others why they have none."""
        finished, missing = [], {}
        for snapshot in all_registered(self.home):
            try:
                self._of_snapshot("shard", snapshot.name)
                finished.append(snapshot.name)
            except ConfigError as error:
                missing[snapshot.name] = str(error)
        return tuple(finished), missing

    def snapshot_of(self, name: str) -> str:
        """The corpus snapshot a stage is made of: the run's, several joined by '+', or all alike."""
        if name in DATA_STAGES:
            return self.config.snapshot
        if not upstream(name) & set(DATA_STAGES):
            return EVERY_SNAPSHOT
        return "+".join(self.config.snapshots)

    def _plan_one(self, stage: Stage, planned: Mapping[str, Planned]) -> Planned:
        snapshot = self.snapshot_of(stage.name)
        waiting = [planned[name] for name in stage.inputs if name in planned and not planned[name].fresh]
        last = self.past.last(stage.name, snapshot)
        if waiting:
            return self._undecided(stage, snapshot, last, f"waits for {waiting[0].stage.name}")
        try:
            inputs = self._inputs_of(stage)
        except ConfigError as error:
            return self._undecided(stage, snapshot, last, str(error))
        out = self._out(stage, inputs)
        self.past.receipt(out)  # to name it if it does not count
        if (receipt := load_receipt(out)) is not None:
            self._known[stage.name] = Input(stage.name, str(out), receipt.digest, receipt)
        state, why = self._state_of(stage, out, last, inputs)
        return Planned(stage, snapshot, state, why, out.name, out, receipt or last)

    def _state_of(
        self, stage: Stage, out: Path, last: Receipt | None, inputs: Mapping[str, tuple[Input, ...]]
    ) -> tuple[State, str]:
        """How the output at `out` stands, and why; `last` is the newest one there is."""
        if (owner := lock_owner(out.with_name(f"{out.name}.lock"))) is not None:
            return State.RUNNING, str(owner)
        if stage.name in self._known:
            return State.FRESH, ""
        if (error := read_failure(out)) is not None:
            return State.FAILED, error
        if (out / RECEIPT).exists():
            return State.STALE, why_it_does_not_count(out)
        interrupted = "interrupted; what was finished is kept" if out.exists() else ""
        if last is None:
            return State.MISSING, interrupted or "never ran"
        changes = (
            "; ".join(changes_since(last, stage, self._config_of(stage), inputs))
            or "made by another version of Straightshot"
        )
        return State.STALE, interrupted or changes

    def _undecided(self, stage: Stage, snapshot: str, last: Receipt | None, why: str) -> Planned:
        """A stage whose fingerprint is unknown because an input is."""
        if last is None:
            return Planned(stage, snapshot, State.MISSING, f"never ran; {why}")
        changes = changes_since(last, stage, self._config_of(stage), {})
        return Planned(stage, snapshot, State.STALE, "; ".join([*changes, why]), receipt=last)

    def _inputs_of(self, stage: Stage, consumer: str = "") -> dict[str, tuple[Input, ...]]:
        """All finished inputs of a stage; see _inputs_for."""
        models = (name for name in MODELS if getattr(self._config_of(stage), name, None))
        absent = "corpus" if self.fetches else FETCH.name  # of the two that stand for each other
        names = [name for name in stage.inputs if name != absent or stage.name == FETCH.name]
        inputs = {name: self._inputs_for(stage, name, consumer) for name in (*names, *models)}
        return inputs | (self._compared_with() if stage.name == "filter" else {})

    def _compared_with(self) -> dict[str, tuple[Input, ...]]:
        """What the filter keeps the corpus apart from, where its config names some: see FilterConfig."""
        config = self._config_of(self._stage("filter"))
        earlier = tuple(
            self._of_snapshot("filter", name) for name in getattr(config, "earlier_snapshots", ())
        )
        images, prompts = (
            tuple(self._evaluation_set(kind, path) for path in getattr(config, kind, ()))
            for kind in ("evaluation_images", "evaluation_prompts")
        )
        named = {"earlier": earlier, "evaluation_images": images, "evaluation_prompts": prompts}
        return {name: items for name, items in named.items() if items}

    def _evaluation_set(self, kind: str, path: str) -> Input:
        """An evaluation set by the digest of its content. Raises ConfigError where it cannot be read."""
        from components.corpus.readers import file_digest, open_corpus

        if path not in self._known:
            try:
                digest = open_corpus(path).digest() if kind == "evaluation_images" else file_digest(path)
            except (InputError, OSError) as error:
                raise ConfigError(f"filter.{kind}: {error}") from error
            self._known[path] = Input(kind, path, digest)
        return self._known[path]

    def _inputs_for(self, stage: Stage, name: str, consumer: str = "") -> tuple[Input, ...]:
        """The finished outputs behind one input of a stage: one, or one per snapshot.

        consumer: the stage that is to run, for the error's advice; `stage` itself by default.
        """
        consumer = consumer or stage.name
        if name in NO_OUTPUTS:
            return (self._source(name),)
        if name in DATA_STAGES and stage.name not in DATA_STAGES:
            return tuple(
                self._finished(consumer, name)
                if snapshot == self.config.snapshot
                else self._of_snapshot(name, snapshot)
                for snapshot in self.config.snapshots
            )
        item = self._finished(consumer, name)
        return (less_withdrawn(item, self.config.snapshot, self.home) if name == FETCH.name else item,)

    def _source(self, name: str) -> Input:
        if name not in self._known:
            if name == "corpus":
                self.refuse_other_corpus()
            source = find_source(name, self.config, self.home, self.tracking_uri)
            if source is None:
                raise ConfigError("the toy web is not written yet")
            if name == "corpus":
                self.refuse_other_corpus(source.digest)
                source = self._less_withdrawn(source, self.config.snapshot)
            self._known[name] = source
        return self._known[name]

    def _less_withdrawn(self, corpus: Input, snapshot: str) -> Input:
        """The corpus with the keys of what was withdrawn from it; a list of URLs has no records yet."""
        return corpus if is_urls(corpus.location) else less_withdrawn(corpus, snapshot, self.home)

    def _finished(self, consumer: str, name: str) -> Input:
        """The complete output of an upstream stage under this config."""
        if name not in self._known:
            stage = self._stage(name)
            inputs = self._inputs_of(stage, consumer)
            out = self._out(stage, inputs)
            receipt = load_receipt(out)
            if receipt is None:
                raise ConfigError(
                    f"{consumer} needs {name}, which is not up to date; run it too: --select +{consumer}"
                )
            self._known[name] = Input(name, str(out), receipt.digest, receipt)
        return self._known[name]

    def _of_snapshot(self, name: str, snapshot: str) -> Input:
        """A data stage's output of another snapshot: of its recorded corpus, which need not be there any
        more, under this run's config and annotators.
        """
        record = self._record_of(name, snapshot)
        config = self.config.model_copy(update={"snapshot": snapshot, "corpus": record.corpus})
        known = {
            "corpus": self._less_withdrawn(Input("corpus", record.corpus, record.digest), snapshot),
            "annotators": self._finished(name, "annotators"),
        }
        other = Pipeline(config, self.home, stages=self.stages, _known=known)
        try:
            return other._finished(name, name)
        except ConfigError as error:
            raise ConfigError(
                f"{_naming(name)}: no {name} of snapshot '{snapshot}' by the config of this run under"
                f" {self.home}; make it with `straightshot run --preset {self.config.preset} --snapshot"
                f" {snapshot} --select +{name}` and this run's --set"
            ) from error

    def _record_of(self, name: str, snapshot: str) -> Snapshot:
        record = registered(self.home, snapshot)
        if record is None:
            raise ConfigError(
                f"{_naming(name)}: no snapshot '{snapshot}' is registered under {self.home}; make it with"
                f" `straightshot run --snapshot {snapshot} --corpus ... --select +{name}`"
            )
        return record

    def _out(self, stage: Stage, inputs: Mapping[str, tuple[Input, ...]]) -> Path:
        name = fingerprint(stage, self.snapshot_of(stage.name), self._config_of(stage), inputs)
        return self.home / stage.name / name

    def _stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def _config_of(self, stage: Stage) -> StageConfig:
        config: StageConfig = getattr(self.config, stage.name)
        return config.before(self.config.snapshot) if isinstance(config, FilterConfig) else config


def _naming(stage: str) -> str:
    """The setting that names other snapshots whose outputs of that stage are read."""
    return "filter.earlier_snapshots" if stage == "filter" else "train_snapshots"


def _summary(outcome: Outcome) -> str:
    """One line about a stage that is done."""
    receipt, counts = outcome.receipt, outcome.receipt.counts
    if not outcome.ran:
        return f"{outcome.stage}: fresh"
    ended = ((counts.kept, "kept"), (counts.rejected, "rejected"), (counts.errored, "errored"))
    words = ", ".join(f"{number:,} {word}" for number, word in ended if number)
    records = f"{counts.in_:,} records: {words}, " if counts.in_ else ""
    return f"{outcome.stage}: {records}{receipt.seconds:,.1f} s, {receipt.peak_rss_mb:,.0f} MB at most"
