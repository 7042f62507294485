"""Gathers what the receipts, parts and metrics of a HOME say into the data of its page.

Reads only what receipts list; what has not run yet is absent, and the page says so.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from components.corpus.readers import open_corpus, read_fragment
from components.corpus.schemas import record_key
from components.evaluation.results import Metrics, read_metrics
from components.reporting.plots import LossCurve
from components.reporting.report_data import (
    AltExample,
    CaptionExample,
    GateCheck,
    Promotion,
    ReportData,
    Sample,
    SampleCell,
    StageRow,
)
from pipelines.config import RunConfig
from pipelines.errors import ConfigError
from pipelines.pipeline import Planned
from pipelines.sources import find_source, is_toy
from pipelines.stages.evaluate import METRICS, SAMPLES
from pipelines.stages.filter import FILTERED_FOLDER, REJECTS_FOLDER
from pipelines.stages.train import CURVE
from pipelines.store.receipts import Receipt

KEPT_SHOWN = 12  # records
REJECTED_SHOWN = 24  # records, over all reasons
CAPTIONS_SHOWN = 8  # records
PARTS_READ = 32  # parts of a large corpus that examples are taken from
COMMANDS = (
    (
        'straightshot generate "a red circle to the left of a blue square" -n 4 -o out/',
        "draw with the champion",
    ),
    ("straightshot ui", "the same run in Dagster’s page and MLflow’s"),
    ("straightshot run --select recaption+ --dry-run", "see what a change would run again"),
)


def collect(home: Path, config: RunConfig, planned: Sequence[Planned]) -> ReportData:
    """Everything that the page shows."""
    made = {one.stage.name: one for one in planned if one.fresh}
    receipts = {name: one.receipt for name, one in made.items() if one.receipt is not None}
    last = max((receipt.finished_at for receipt in receipts.values()), default="")
    return ReportData(
        corpus=config.corpus,
        preset=config.preset,
        snapshot=config.snapshot,
        home=str(home),
        finished=last.replace("T", " ").replace("+00:00", " UTC") or "not yet",
        stages=tuple(_stage_row(receipt) for receipt in receipts.values()),
        kept=tuple(_kept(made)),
        rejected=tuple(_rejected(home, config, made)),
        captions=tuple(_captions(made)),
        losses=tuple(_losses(made)),
        samples=tuple(_samples(made)),
        metrics=_metrics(made),
        promotion=_promotion(planned),
        libraries=next((receipt.libraries for receipt in reversed(receipts.values())), {}),
        digests=_digests(receipts),
        config=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        commands=COMMANDS,
    )


def _stage_row(receipt: Receipt) -> StageRow:
    counts = receipt.counts
    counted = (
        {"kept": counts.kept, "rejected": counts.rejected, "errored": counts.errored} if counts.in_ else {}
    )
    return StageRow(
        stage=receipt.stage,
        seconds=receipt.seconds,
        peak_rss_mb=receipt.peak_rss_mb,
        fingerprint=receipt.fingerprint,
        records_in=counts.in_ or None,
        rejects=receipt.reasons,
        **counted,
    )


def _kept(made: Mapping[str, Planned]) -> Iterator[AltExample]:
    """Kept records: the first of each part in turn, so that the examples come from all over."""
    columns = ["image", "alt_text", "url", "judge_score"]
    for row in islice(_in_turn(_files(made, "filter", f"{FILTERED_FOLDER}/"), columns), KEPT_SHOWN):
        yield AltExample(row["image"], row["alt_text"], row["url"], judge_score=row["judge_score"])


def _captions(made: Mapping[str, Planned]) -> Iterator[CaptionExample]:
    columns = [
        "image",
        "alt_text",
        "caption_short",
        "caption_long",
        "judge_score",
        "score_short",
        "score_long",
    ]
    for row in islice(_in_turn(_files(made, "recaption", "captioned/"), columns), CAPTIONS_SHOWN):
        yield CaptionExample(
            image=row["image"],
            alt_text=row["alt_text"],
            caption_short=row["caption_short"],
            caption_long=row["caption_long"],
            score_alt=row["judge_score"],
            score_short=row["score_short"],
            score_long=row["score_long"],
        )


def _rejected(home: Path, config: RunConfig, made: Mapping[str, Planned]) -> Iterator[AltExample]:
    """Rejected records, every reason in turn, with the images that the raw corpus has for them."""
    rows = [
        row
        for path in _files(made, "filter", f"{REJECTS_FOLDER}/")
        for row in pq.ParquetFile(path).read().to_pylist()
    ]
    chosen = list(islice(_by_reason(rows), REJECTED_SHOWN))
    images = _raw_images(home, config, {row["key"] for row in chosen})
    for row in chosen:
        yield AltExample(images.get(row["key"]), row["alt_text"], row["url"], row["reason"], row["detail"])


def _by_reason(rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The first of each reason, the most frequent reason first, then the second of each, and so on."""
    frequency = Counter(row["reason"] for row in rows)
    reasons = sorted(frequency, key=lambda reason: (-frequency[reason], reason))
    lanes = [[row for row in rows if row["reason"] == reason] for reason in reasons]
    return (row for turn in zip_longest(*lanes) for row in turn if row is not None)


def _raw_images(home: Path, config: RunConfig, keys: set[str]) -> dict[str, bytes | None]:
    """The images of these records, looked for in the first fragments of the raw corpus."""
    found: dict[str, bytes | None] = {}
    try:
        for fragment in open_corpus(_corpus_uri(home, config)).fragments[:PARTS_READ]:
            if len(found) == len(keys):
                break
            for record in read_fragment(fragment):
                key = record_key(record.image or b"", f"{config.snapshot}:{record.url or ''}")
                if key in keys:
                    found[key] = record.image
    except (ConfigError, ValueError):
        return found  # the corpus has moved since: the texts are shown without their images
    return found


def _corpus_uri(home: Path, config: RunConfig) -> str:
    """Where the raw corpus lies; a toy web lies under HOME."""
    if not is_toy(config.corpus):
        return config.corpus
    source = find_source("corpus", config, home)
    return source.location if source else config.corpus


def _samples(made: Mapping[str, Planned]) -> Iterator[Sample]:
    """The drawn images that evaluate kept, gathered by prompt."""
    tables = [pq.ParquetFile(path).read().to_pylist() for path in _files(made, "evaluate", SAMPLES)]
    shown = sorted(
        (row for rows in tables for row in rows if row["image"] is not None),
        key=lambda row: (row["index"], row["model"] != "teacher", row["steps"]),
    )
    for index in dict.fromkeys(row["index"] for row in shown):
        rows = [row for row in shown if row["index"] == index]
        cells = tuple(SampleCell(row["model"], row["steps"], row["image"], row["follows"]) for row in rows)
        prompt, caption = rows[0]["prompt"], rows[0]["caption"]
        yield Sample(prompt, cells, rows[0]["category"], caption if caption != prompt else None)


def _losses(made: Mapping[str, Planned]) -> Iterator[LossCurve]:
    for stage, model in (("train", "teacher"), ("distill", "student")):
        for path in _files(made, stage, CURVE):
            points = json.loads(path.read_text(encoding="utf-8"))
            images = [point["images_seen"] for point in points]
            yield LossCurve(stage, model, images, [point["values"]["loss"] for point in points])


def _metrics(made: Mapping[str, Planned]) -> Metrics | None:
    paths = _files(made, "evaluate", METRICS)
    return read_metrics(paths[0]) if paths else None


def _promotion(planned: Iterable[Planned]) -> Promotion | None:
    """The gate's decision; one that refused has no receipt, and its output is read all the same."""
    promote = next((one for one in planned if one.stage.name == "promote"), None)
    decision = promote.path / "decision.json" if promote and promote.path else None
    if promote is None or decision is None or not decision.is_file():
        return None
    document = json.loads(decision.read_text(encoding="utf-8"))
    version = promote.receipt.info.get("version") if promote.fresh and promote.receipt else None
    checks = tuple(GateCheck(check["text"], check["passed"]) for check in document["checks"])
    return Promotion(document["verdict"] == "promoted", version, checks)


def _digests(receipts: Mapping[str, Receipt]) -> dict[str, str]:
    """What went in and what came out, by the digests of its content."""
    found = {}
    for name, receipt in receipts.items():
        for source in ("labelled", "corpus"):
            for digest in receipt.inputs.get(source, []):
                found[source] = digest
        found[name] = receipt.digest
    return found


def _files(made: Mapping[str, Planned], stage: str, prefix: str) -> list[Path]:
    """Files under `prefix` of a fresh stage's output, as its receipt lists them, at most PARTS_READ."""
    one = made.get(stage)
    if one is None or one.path is None or one.receipt is None:
        return []
    names = sorted(entry.path for entry in one.receipt.files if entry.path.startswith(prefix))
    return [one.path / name for name in names[:PARTS_READ]]


def _in_turn(paths: Sequence[Path], columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of Parquet files: the first row of each, then the second of each, and so on."""
    lanes = [_rows_of(path, columns) for path in paths]
    return (row for turn in zip_longest(*lanes) for row in turn if row is not None)


def _rows_of(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(path).iter_batches(batch_size=16, columns=columns):
        yield from batch.to_pylist()
