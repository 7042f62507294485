"""What each stage reads: the finished outputs of others, the corpus, the labelled set, evaluation sets.

Under one config and HOME. Where an output lies says its fingerprint, which needs the stage's own inputs; so
what is asked of one stage finds all upstream.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from components.errors import InputError
from pipelines.config import RunConfig
from pipelines.errors import ConfigError
from pipelines.graph import DATA_STAGES, EVERY_SNAPSHOT, FETCH, upstream
from pipelines.planning.past_outputs import PastOutputs
from pipelines.snapshots import Snapshot, all_registered, refuse_other_corpus, registered
from pipelines.sources import find_source
from pipelines.stage import MODELS, NO_OUTPUTS, Input, Stage, StageConfig, fingerprint
from pipelines.stages.fetch import is_urls
from pipelines.stages.filter import FilterConfig
from pipelines.store.outputs import load_receipt
from pipelines.withdrawals import less_withdrawn


@dataclass
class StageInputs:
    """Finds them, and remembers what it found: `known`, by name; past: what earlier runs left under HOME."""

    config: RunConfig
    home: Path
    stages: tuple[Stage, ...]
    past: PastOutputs
    tracking_uri: str | None = None
    known: dict[str, Input] = field(default_factory=dict, repr=False)

    @property
    def fetches(self) -> bool:
        """Whether the corpus is a list of URLs, so that fetch is one of the stages."""
        return is_urls(self.config.corpus)

    def snapshot_of(self, name: str) -> str:
        """The corpus snapshot a stage is made of: the run's, several joined by '+', or all alike."""
        if name in DATA_STAGES:
            return self.config.snapshot
        if not upstream(name) & set(DATA_STAGES):
            return EVERY_SNAPSHOT
        return "+".join(self.config.snapshots)

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
                if "annotators" in self.known:
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

    def of(self, stage: Stage, consumer: str = "") -> dict[str, tuple[Input, ...]]:
        """All finished inputs of a stage; see `behind`."""
        models = (name for name in MODELS if getattr(self.config_of(stage), name, None))
        absent = "corpus" if self.fetches else FETCH.name  # of the two that stand for each other
        names = [name for name in stage.inputs if name != absent or stage.name == FETCH.name]
        inputs = {name: self.behind(stage, name, consumer) for name in (*names, *models)}
        return inputs | (self._compared_with() if stage.name == "filter" else {})

    def some_of(self, name: str, only: Iterable[str]) -> dict[str, tuple[Input, ...]]:
        """Some finished inputs of a stage, by name. Raises ConfigError for one that is not up to date."""
        stage = self.stage(name)
        return {source: self.behind(stage, source) for source in only}

    def _compared_with(self) -> dict[str, tuple[Input, ...]]:
        """What the filter keeps the corpus apart from, where its config names some: see FilterConfig."""
        config = self.config_of(self.stage("filter"))
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

        if path not in self.known:
            try:
                digest = open_corpus(path).digest() if kind == "evaluation_images" else file_digest(path)
            except (InputError, OSError) as error:
                raise ConfigError(f"filter.{kind}: {error}") from error
            self.known[path] = Input(kind, path, digest)
        return self.known[path]

    def behind(self, stage: Stage, name: str, consumer: str = "") -> tuple[Input, ...]:
        """The finished outputs behind one input of a stage: one, or one per snapshot.

        consumer: the stage that is to run, for the error's advice; `stage` itself by default.
        """
        consumer = consumer or stage.name
        if name in NO_OUTPUTS:
            return (self.source(name),)
        if name in DATA_STAGES and stage.name not in DATA_STAGES:
            return tuple(
                self.finished(consumer, name)
                if snapshot == self.config.snapshot
                else self._of_snapshot(name, snapshot)
                for snapshot in self.config.snapshots
            )
        item = self.finished(consumer, name)
        return (less_withdrawn(item, self.config.snapshot, self.home) if name == FETCH.name else item,)

    def source(self, name: str) -> Input:
        """The corpus or the labelled set. Raises ConfigError where it is not there."""
        if name not in self.known:
            if name == "corpus":
                self.refuse_other_corpus()
            source = find_source(name, self.config, self.home, self.tracking_uri)
            if source is None:
                raise ConfigError("the toy web is not written yet")
            if name == "corpus":
                self.refuse_other_corpus(source.digest)
                source = self._less_withdrawn(source, self.config.snapshot)
            self.known[name] = source
        return self.known[name]

    def _less_withdrawn(self, corpus: Input, snapshot: str) -> Input:
        """The corpus with the keys of what was withdrawn from it; a list of URLs has no records yet."""
        return corpus if is_urls(corpus.location) else less_withdrawn(corpus, snapshot, self.home)

    def finished(self, consumer: str, name: str) -> Input:
        """The complete output of an upstream stage under this config."""
        if name not in self.known:
            stage = self.stage(name)
            inputs = self.of(stage, consumer)
            out = self.out(stage, inputs)
            receipt = load_receipt(out)
            if receipt is None:
                raise ConfigError(
                    f"{consumer} needs {name}, which is not up to date; run it too: --select +{consumer}"
                )
            self.known[name] = Input(name, str(out), receipt.digest, receipt)
        return self.known[name]

    def _of_snapshot(self, name: str, snapshot: str) -> Input:
        """A data stage's output of another snapshot: of its recorded corpus, which need not be there any
        more, under this run's config and annotators.
        """
        record = self._record_of(name, snapshot)
        config = self.config.model_copy(update={"snapshot": snapshot, "corpus": record.corpus})
        known = {
            "corpus": self._less_withdrawn(Input("corpus", record.corpus, record.digest), snapshot),
            "annotators": self.finished(name, "annotators"),
        }
        other = StageInputs(config, self.home, self.stages, self.past, known=known)
        try:
            return other.finished(name, name)
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

    def out(self, stage: Stage, inputs: Mapping[str, tuple[Input, ...]]) -> Path:
        """Where the stage's output of these inputs lies, or will."""
        name = fingerprint(stage, self.snapshot_of(stage.name), self.config_of(stage), inputs)
        return self.home / stage.name / name

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    def config_of(self, stage: Stage) -> StageConfig:
        """The stage's part of the config."""
        config: StageConfig = getattr(self.config, stage.name)
        return config.before(self.config.snapshot) if isinstance(config, FilterConfig) else config


def _naming(stage: str) -> str:
    """The setting that names other snapshots whose outputs of that stage are read."""
    return "filter.earlier_snapshots" if stage == "filter" else "train_snapshots"
