"""The pipeline: the stages in order, what of them is fresh, and how one of them is run.

    annotators -> (fetch ->) filter -> recaption -> shard -> train -> distill -> evaluate -> promote

The command plans with it (`Pipeline.plan`), the DAG runs with it (`Pipeline.run_one`). Freshness is decided
here and only here, by the fingerprints of stage.py: an input counts by the digest of its content, so an
upstream that ran again and made the same bytes stops the change there (early cut-off).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipelines.config import RunConfig
from pipelines.errors import ConfigError
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.graph import EVERY_STAGE, FETCH, SOURCES
from pipelines.planning.past_outputs import PastOutputs, why_it_does_not_count
from pipelines.planning.planned import Planned, State, changes_since
from pipelines.planning.stage_inputs import StageInputs
from pipelines.registry.mlflow_store import Tracker
from pipelines.snapshots import register
from pipelines.sources import find_source, make_toy_web
from pipelines.stage import Input, Stage, run_stage
from pipelines.store.locks import lock_owner
from pipelines.store.outputs import load_receipt, read_failure
from pipelines.store.receipts import RECEIPT, Receipt


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

    @cached_property
    def past(self) -> PastOutputs:
        """What earlier runs left under HOME."""
        return PastOutputs(self.home, self.progress)

    @cached_property
    def inputs(self) -> StageInputs:
        """What the stages read."""
        return StageInputs(self.config, self.home, self.stages, self.past, self.tracking_uri)

    def plan(self) -> list[Planned]:
        """Every stage's state, in order. Reads only; never makes anything."""
        planned: dict[str, Planned] = {}
        for stage in self.stages:
            if stage.name != FETCH.name or self.inputs.fetches:
                planned[stage.name] = self._plan_one(stage, planned)
        return list(planned.values())

    def run_one(self, name: str, *, force: bool = False) -> Outcome:
        """Make one stage's output, or find it made. Raises ConfigError when an input is not there yet."""
        stage = self.inputs.stage(name)
        if "corpus" in stage.inputs:
            self.register()
        inputs = self.inputs.of(stage)
        out = self.inputs.out(stage, inputs)
        finished = load_receipt(out, verify=False)
        receipt = run_stage(
            stage,
            self.inputs.config_of(stage),
            inputs,
            home=self.home,
            snapshot=self.inputs.snapshot_of(stage.name),
            engine=self.engine,
            progress=self.progress,
            tracking_uri=self.tracking_uri,
            force=force,
        )
        self.inputs.known[name] = Input(name, str(out), receipt.digest, receipt)
        outcome = Outcome(name, receipt, out, ran=receipt != finished)
        self.progress.say(_summary(outcome))
        return outcome

    def prepare(self) -> None:
        """Have every source there: write the toy web if this run wants one. Raises ConfigError.

        Also where HOME is in a bucket and no MLflow is named: better now than after the data stages.
        """
        Tracker(self.home, self.tracking_uri)
        self.inputs.refuse_other_corpus()
        for name in SOURCES:
            if any(name in stage.inputs for stage in self.stages):
                self.source(name)

    def source(self, name: str) -> Input:
        """The corpus or the labelled set; a toy web is written if it is not there yet."""
        if name == "corpus":
            self.inputs.refuse_other_corpus()
        if name not in self.inputs.known and find_source(name, self.config, self.home) is None:
            make_toy_web(self.config, self.home, self.engine, self.progress)
        return self.inputs.source(name)

    def register(self) -> Input:
        """Record that the run's snapshot means this corpus, which is returned. ConfigError for another."""
        name, corpus = self.config.snapshot, self.source("corpus")
        register(self.home, name, self.config.corpus, corpus.digest, replace=not self.past.any_of(name))
        return corpus

    def _plan_one(self, stage: Stage, planned: Mapping[str, Planned]) -> Planned:
        snapshot = self.inputs.snapshot_of(stage.name)
        waiting = [planned[name] for name in stage.inputs if name in planned and not planned[name].fresh]
        last = self.past.last(stage.name, snapshot)
        if waiting:
            return self._undecided(stage, snapshot, last, f"waits for {waiting[0].stage.name}")
        try:
            inputs = self.inputs.of(stage)
        except ConfigError as error:
            return self._undecided(stage, snapshot, last, str(error))
        out = self.inputs.out(stage, inputs)
        self.past.receipt(out)  # to name it if it does not count
        if (receipt := load_receipt(out)) is not None:
            self.inputs.known[stage.name] = Input(stage.name, str(out), receipt.digest, receipt)
        state, why = self._state_of(stage, out, last, inputs)
        return Planned(stage, snapshot, state, why, out.name, out, receipt or last)

    def _state_of(
        self, stage: Stage, out: Path, last: Receipt | None, inputs: Mapping[str, tuple[Input, ...]]
    ) -> tuple[State, str]:
        """How the output at `out` stands, and why; `last` is the newest one there is."""
        if (owner := lock_owner(out.with_name(f"{out.name}.lock"))) is not None:
            return State.RUNNING, str(owner)
        if stage.name in self.inputs.known:
            return State.FRESH, ""
        if (error := read_failure(out)) is not None:
            return State.FAILED, error
        if (out / RECEIPT).exists():
            return State.STALE, why_it_does_not_count(out)
        interrupted = "interrupted; what was finished is kept" if out.exists() else ""
        if last is None:
            return State.MISSING, interrupted or "never ran"
        changes = (
            "; ".join(changes_since(last, stage, self.inputs.config_of(stage), inputs))
            or "made by another version of Straightshot"
        )
        return State.STALE, interrupted or changes

    def _undecided(self, stage: Stage, snapshot: str, last: Receipt | None, why: str) -> Planned:
        """A stage whose fingerprint is unknown because an input is."""
        if last is None:
            return Planned(stage, snapshot, State.MISSING, f"never ran; {why}")
        changes = changes_since(last, stage, self.inputs.config_of(stage), {})
        return Planned(stage, snapshot, State.STALE, "; ".join([*changes, why]), receipt=last)


def _summary(outcome: Outcome) -> str:
    """One line about a stage that is done."""
    receipt, counts = outcome.receipt, outcome.receipt.counts
    if not outcome.ran:
        return f"{outcome.stage}: fresh"
    ended = ((counts.kept, "kept"), (counts.rejected, "rejected"), (counts.errored, "errored"))
    words = ", ".join(f"{number:,} {word}" for number, word in ended if number)
    records = f"{counts.in_:,} records: {words}, " if counts.in_ else ""
    return f"{outcome.stage}: {records}{receipt.seconds:,.1f} s, {receipt.peak_rss_mb:,.0f} MB at most"
