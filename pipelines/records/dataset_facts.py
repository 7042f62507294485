"""What is known of an output of the shard stage, for its card: from the receipts and records behind it."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from components.captioning.kinds import TEMPLATES
from components.dataset_card.facts import DatasetFacts, KindFacts, StepFacts
from components.shards.index import INDEX_NAME, load_index
from pipelines.errors import ConfigError
from pipelines.retention.catalog import Catalog, Output, read_catalog
from pipelines.stages.data.part_records import CAPTIONED_FOLDER
from pipelines.store.outputs import fetch

STAGES = ("filter", "recaption", "shard")  # whose counts a card shows
NOT_TEXTS = ("image",)
BATCH_ROWS = 8192
GATES = {
    "judge_threshold": "cosine of image and alt text at least {}",
    "judge_keep_fraction": "the best {} of the records by that cosine",
    "caption_threshold": "cosine of image and every caption at least {}",
    "agreement_threshold": "cosine of any two captions of an image at least {}",
}


def dataset_facts(home: Path, snapshot: str | None, name: str) -> DatasetFacts:
    """The facts of the newest shards of a snapshot, by default of the newest of all.

    Raises ConfigError where there are none, or the outputs that they were made from are gone.
    """
    catalog = read_catalog(home)
    shards = next(
        (output for output in catalog.of("shard") if snapshot in (None, output.receipt.snapshot)), None
    )
    if shards is None:
        of = f" of snapshot '{snapshot}'" if snapshot else ""
        raise ConfigError(f"no shards{of} under {home}; make some with `straightshot run --select +shard`")
    recaption = _made_from(catalog, shards, "recaption")
    filtered, annotators = (_made_from(catalog, recaption, stage) for stage in ("filter", "annotators"))
    for output in (shards, recaption):
        fetch(output.path, output.receipt)
    counted = _Counted.over(recaption)
    config = recaption.receipt.config
    return DatasetFacts(
        name=name,
        snapshot=shards.receipt.snapshot,
        digest=shards.receipt.digest,
        made_at=shards.receipt.finished_at,
        tars=load_index(shards.path / INDEX_NAME).shards,
        columns=counted.columns,
        steps=tuple(_step(output) for output in (filtered, recaption, shards)),
        kinds=tuple(_kind(kind, settings, counted) for kind, settings in config["kinds"].items()),
        languages=counted.languages,
        domains=counted.domains,
        licenses=counted.licenses,
        sources=counted.sources,
        captioner=_captioner(recaption, annotators),
        judge=_model(annotators, "judge"),
        gates=tuple(_gates(filtered.receipt.config | config)),
        heads=tuple(config.get("heads", {})),
        hinted=any(settings.get("hint") for settings in config["kinds"].values()),
    )


def _made_from(catalog: Catalog, output: Output, stage: str) -> Output:
    found = [made for made in catalog.inputs(output) if made.receipt.stage == stage]
    if not found:
        raise ConfigError(
            f"{output.name}: the {stage} output that it was made from is gone; run the same command again,"
            " and then the card"
        )
    return found[0]


@dataclass
class _Counted:
    """Sums over the records that went into the shards."""

    columns: dict[str, str] = field(default_factory=dict)
    records: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    domains: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)  # by caption column
    scores: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by score column

    @classmethod
    def over(cls, recaption: Output) -> "_Counted":
        counted = cls()
        for entry in recaption.receipt.files_in(CAPTIONED_FOLDER):
            file = pq.ParquetFile(recaption.path / CAPTIONED_FOLDER / entry.path)
            columns = [f for f in file.schema_arrow if f.name not in NOT_TEXTS]
            counted.columns |= {f.name: _json_type(f.type) for f in columns}
            for batch in file.iter_batches(BATCH_ROWS, columns=[f.name for f in columns]):
                counted._add(batch)
        return counted

    def _add(self, batch: pa.RecordBatch) -> None:
        rows = batch.num_rows
        self.records += rows

        def values(name: str) -> list[Any]:
            return batch.column(name).to_pylist() if name in batch.schema.names else [None] * rows

        self.languages.update(value or "" for value in values("language"))
        self.domains.update(map(_domain, values("url")))
        self.licenses.update(value or "" for value in values("license"))
        self.sources.update(map(_source, values("source")))
        for name in batch.schema.names:
            if name.startswith("caption_"):
                self.words[name] += sum(len((text or "").split()) for text in values(name))
            elif name.startswith("score_"):
                self.scores[name] += sum(score or 0 for score in values(name))


def _json_type(column: pa.DataType) -> str:
    """What a column is in a sample's JSON."""
    if pa.types.is_integer(column):
        return "integer"
    return "number" if pa.types.is_floating(column) else "string"


def _domain(url: str | None) -> str:
    """The host of a URL, without a www.; "" where there is none."""
    try:
        host = urlsplit(url or "").hostname or ""
    except ValueError:  # brackets that are no IPv6 address
        return ""
    return host.removeprefix("www.")


def _source(value: str | None) -> str:
    """A source as it is; of an address the host: a crawl names the page of every image."""
    return (_domain(value) if value and "://" in value else value) or ""


def _step(output: Output) -> StepFacts:
    receipt = output.receipt
    return StepFacts(receipt.stage, receipt.counts.in_, receipt.counts.kept, receipt.reasons)


def _kind(name: str, settings: Mapping[str, Any], counted: _Counted) -> KindFacts:
    prompt, records = str(settings["prompt"]), max(counted.records, 1)
    text = f"{prompt}: {TEMPLATES[prompt]}" if prompt in TEMPLATES else prompt
    return KindFacts(
        name=name,
        prompt=text,
        mean_words=counted.words[f"caption_{name}"] / records,
        mean_score=counted.scores[f"score_{name}"] / records,
    )


def _captioner(recaption: Output, annotators: Output) -> str:
    server = recaption.receipt.config.get("server")
    return f"{server['model']}, asked over a server" if server else _model(annotators, "captioner")


def _model(annotators: Output, name: str) -> str:
    """A model of the annotators in words: its id and commit, or that it was fitted here."""
    info = annotators.receipt.info
    model, commit = str(info.get(name) or "unknown"), info.get(f"{name}_revision")
    if model == "fit":
        return f"fitted on {info.get('labelled', 0):,} labelled images (output {annotators.path.name})"
    if commit:
        return f"{model} at commit {commit}"
    return Path(model).name if Path(model).is_absolute() else model  # no machine's paths


def _gates(config: Mapping[str, Any]) -> Iterator[str]:
    """The thresholds of filter and recaption that are set."""
    for name, words in GATES.items():
        if config.get(name) is not None:
            yield words.format(config[name])
    for name, head in config.get("heads", {}).items():
        sides = [side for side in ("at_least", "at_most") if head[side] is not None]
        limits = [f"{side.replace('_', ' ')} {head[side]:g}" for side in sides]
        yield f"head {name}: {' and '.join(limits) or 'no threshold'}"
