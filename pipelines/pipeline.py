"""The pipeline: the stages in order, what of them is fresh, and how one of them is run.

    annotators -> (fetch ->) filter -> recaption -> shard -> train -> distill -> evaluate -> promote

The command plans with it (`Pipeline.plan`), the DAG runs with it (`Pipeline.run_one`). Freshness is decided
here and only here, by the fingerprints of stage.py: an input counts by the digest of its content, so an
upstream that ran again and made the same bytes stops the change there (early cut-off).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from components.errors import InputError
from pipelines.config import RunConfig
from pipelines.errors import ConfigError
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.graph import DATA_STAGES, EVERY_SNAPSHOT, EVERY_STAGE, FETCH, SOURCES, upstream
from pipelines.registry.mlflow_store import Tracker
from pipelines.snapshots import Snapshot, all_registered, refuse_other_corpus, register, registered
from pipelines.sources import find_source, make_toy_web
from pipelines.stage import (
    MODELS,
    NO_OUTPUTS,
    Input,
    Stage,
    StageConfig,
    fingerprint,
    input_digests,
    run_stage,
)
from pipelines.stages.fetch import is_urls
from pipelines.stages.filter import FilterConfig
from pipelines.store.locks import lock_owner
from pipelines.store.mirror import fetch_files
from pipelines.store.outputs import FORCED, checked_receipt, load_receipt, read_failure
from pipelines.store.receipts import RECEIPT, Receipt, ReceiptError
from pipelines.withdrawals import less_withdrawn

STATED_SNAPSHOT = re.compile(rb'"snapshot"\s*:\s*"([^"]*)"')


class State(StrEnum):
    """How an output stands to its config and inputs."""

    FRESH = "fresh"
    STALE = "stale"  # there is an output, of another config or other inputs
    MISSING = "missing"
    RUNNING = "running"
    FAILED = "failed"


@dataclass(frozen=True)
class Planned:
    """One stage in a plan. `fingerprint` and `path` are None while an upstream stage has yet to run.

    receipt: of the output itself when fresh, else of the last output that there is.
    """

    stage: Stage
    snapshot: str
    state: State
    why: str
    fingerprint: str | None = None
    path: Path | None = None
    receipt: Receipt | None = None

    @property
    def fresh(self) -> bool:
        return self.state is State.FRESH

    def files(self, prefix: str, most: int | None = None) -> list[Path]:
        """The first files of the output under `prefix`, in name order, on this host; none without one."""
        if self.path is None or self.receipt is None:
            return []
        entries = [entry for entry in self.receipt.files if entry.path.startswith(prefix)]
        wanted = sorted(entries, key=lambda entry: entry.path)[:most]
        fetch_files(self.path, wanted)
        return [self.path / entry.path for entry in wanted]


@dataclass(frozen=True)
class Outcome:
    """One stage after `run_one`: its receipt, and whether it was made now or found made."""

    stage: str
    receipt: Receipt
    path: Path
    ran: bool


@dataclass
class Pipeline:
    """The stages under one config and HOME. Outputs found complete are remembered.

    A receipt that does not count (torn, edited, of another version) is named by `progress` in one line, once.
    """

    config: RunConfig
    home: Path
    engine: Engine = field(default_factory=Engine)
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))
    tracking_uri: str | None = None
    stages: tuple[Stage, ...] = EVERY_STAGE
    _known: dict[str, Input] = field(default_factory=dict, repr=False)
    _reported: set[Path] = field(default_factory=set, repr=False)  # receipts that do not count

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
        register(self.home, name, self.config.corpus, corpus.digest, replace=not self.made(name))
        return corpus

    def refuse_other_corpus(self, digest: str | None = None) -> None:
        """Raise ConfigError if the run's snapshot was made of another corpus than the run's.

        digest: of the run's corpus, to compare its content as well.
        """
        snapshot = registered(self.home, self.config.snapshot)
        if snapshot is not None and self.made(snapshot.name):
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

    def made(self, snapshot: str, stages: Iterable[str] = DATA_STAGES) -> bool:
        """Whether one of the data stages made an output of a snapshot, by any config."""
        return any(self._last_receipt(name, snapshot) is not None for name in stages)

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
        last = self._last_receipt(stage.name, snapshot)
        if waiting:
            return self._undecided(stage, snapshot, last, f"waits for {waiting[0].stage.name}")
        try:
            inputs = self._inputs_of(stage)
        except ConfigError as error:
            return self._undecided(stage, snapshot, last, str(error))
        out = self._out(stage, inputs)
        self._readable_receipt(out)  # to name it if it does not count
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
            return State.STALE, self._why_it_does_not_count(out)
        interrupted = "interrupted; what was finished is kept" if out.exists() else ""
        if last is None:
            return State.MISSING, interrupted or "never ran"
        changes = "; ".join(self._changes(stage, last, inputs)) or "made by another version of Straightshot"
        return State.STALE, interrupted or changes

    def _undecided(self, stage: Stage, snapshot: str, last: Receipt | None, why: str) -> Planned:
        """A stage whose fingerprint is unknown because an input is."""
        if last is None:
            return Planned(stage, snapshot, State.MISSING, f"never ran; {why}")
        return Planned(
            stage, snapshot, State.STALE, "; ".join([*self._changes(stage, last), why]), receipt=last
        )

    def _changes(
        self, stage: Stage, last: Receipt, inputs: Mapping[str, tuple[Input, ...]] | None = None
    ) -> list[str]:
        """What differs from the last output, in words."""
        changes = []
        if last.version != stage.version:
            changes.append(f"version {last.version} -> {stage.version}")
        config = self._config_of(stage)
        before, now = (
            _without(dump, config.NOT_IN_FINGERPRINT)
            for dump in (last.config, config.model_dump(mode="json"))
        )
        fields = changed_fields(before, now)
        if fields:
            changes.append(f"config: {', '.join(fields)} changed")
        for name, digests in input_digests(inputs or {}).items():
            if last.inputs.get(name) != digests:
                changes.append(f"input {name} changed")
        return changes

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

    def _last_receipt(self, name: str, snapshot: str) -> Receipt | None:
        """The receipt of the newest output of a stage for a snapshot, whatever its config.

        Newest first, and no further than needed: a HOME may hold thousands.
        """
        folder = self.home / name
        paths = sorted(folder.glob(f"*/{RECEIPT}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in paths:
            stated = STATED_SNAPSHOT.search(path.read_bytes())
            if path.parent.name.endswith(FORCED) or (stated and stated[1] != snapshot.encode()):
                continue  # seen before it is parsed: 0.02 ms instead of 4 ms with 1,000 files
            if (receipt := self._readable_receipt(path.parent)) is not None and receipt.snapshot == snapshot:
                return receipt
        return None

    def _readable_receipt(self, out: Path) -> Receipt | None:
        """The receipt in a folder; one that does not count is named once, and is as if it were not there."""
        try:
            return checked_receipt(out)
        except ReceiptError as error:
            if out not in self._reported:
                self._reported.add(out)
                self.progress.say(f"{out / RECEIPT}: {error}; left out, and made again when it is needed")
            return None

    def _why_it_does_not_count(self, out: Path) -> str:
        """Why the output at `out`, which has a receipt, is not complete."""
        try:
            checked_receipt(out)
        except ReceiptError as error:
            return f"its receipt does not count: {error}"
        return "its files are not as they were made"

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


def _without(config: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A config's dump without these fields: name -> True, or the same of a section's fields."""
    kept = {name: value for name, value in config.items() if fields.get(name) is not True}
    return {
        name: _without(value, fields[name]) if name in fields and isinstance(value, Mapping) else value
        for name, value in kept.items()
    }


def changed_fields(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names of the values that differ between two JSON objects."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [prefix.rstrip(".")] if old != new else []
    return [
        name
        for key in dict.fromkeys([*old, *new])
        for name in changed_fields(old.get(key), new.get(key), f"{prefix}{key}.")
    ]
