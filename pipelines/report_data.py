"""Gathers the receipts, parts and metrics of a HOME into the data of its page.

Reads only what receipts list; what has not run yet is absent, and the page says so. A file that cannot be
read is one line among the page's problems.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from components.captioning.kinds import ALT_COLUMN, CAPTION_KINDS
from components.evaluation.results import METRICS_FILE, Metrics, read_metrics
from components.reporting.plots import LossCurve
from components.reporting.report_data import (
    AltExample,
    CaptionExample,
    CaptionTruth,
    GateCheck,
    GateVerdict,
    ModelGroup,
    ModelHistory,
    ReportData,
    ScoredCaption,
    StageRow,
)
from components.studies.table import StudyTable
from components.training.config import VALIDATION_LOSS
from pipelines.config import RunConfig
from pipelines.errors import StraightshotError
from pipelines.planning.planned import Planned
from pipelines.registry.champion import history
from pipelines.registry.comparison import COLUMNS, LEGEND, MeasuredModel, compared, quality_of_change
from pipelines.registry.journal import GATE
from pipelines.report_rejects import rejected_records
from pipelines.report_samples import judged_images, prompt_samples, read_rows
from pipelines.stages.annotators import CAPTION_TRUTH
from pipelines.stages.data.part_records import DROPPED_TEXTS, FILTERED_FOLDER
from pipelines.stages.evaluate import SAMPLES
from pipelines.stages.learning.training_config import CURVE
from pipelines.stages.promote import DECISION_FILE
from pipelines.store.outputs import readable_receipt
from pipelines.store.receipts import RECEIPT, Receipt
from pipelines.studies.stage import STAGE as STUDY
from pipelines.studies.stage import read_table

KEPT_SHOWN = 12  # records
CAPTIONS_SHOWN = 8  # records
MOVES_SHOWN = 20  # promotions and refusals, the newest
PARTS_READ = 32  # parts of a large corpus that examples are taken from
COMMANDS = (
    (
        'straightshot generate "a red circle to the left of a blue square" -n 4 -o out/',
        "generate with the champion",
    ),
    ("straightshot ui", "the same run in Dagster’s page and MLflow’s"),
    ("straightshot run --select recaption+ --dry-run", "see what a change would run again"),
)


def collect(home: Path, config: RunConfig, planned: Sequence[Planned]) -> ReportData:
    """Everything that the page shows."""
    fresh = {plan.stage.name: plan for plan in planned if plan.fresh}
    receipts = {name: plan.receipt for name, plan in fresh.items() if plan.receipt is not None}
    problems: list[str] = []
    samples = read_rows(_files(fresh, "evaluate", SAMPLES))
    last = max((receipt.finished_at for receipt in receipts.values()), default="")
    return ReportData(
        corpus=config.corpus,
        preset=config.preset,
        snapshot=config.snapshot,
        home=str(home),
        finished=f"{last[:19].replace('T', ' ')} UTC" if last else "not yet",
        stages=tuple(_stage_row(receipt) for receipt in receipts.values()),
        kept=tuple(_kept(fresh)),
        rejected=tuple(rejected_records(fresh)),
        captions=tuple(_captions(fresh)),
        losses=tuple(_losses(fresh)),
        caption_truth=tuple(_caption_truth(receipts)),
        samples=tuple(prompt_samples(samples)),
        judged=tuple(judged_images(samples, config.promote.steps)),
        history=_history(home, config.promote.registered_name, problems),
        studies=tuple(_studies(home, problems)),
        metrics=_metrics(fresh, problems),
        promotion=_gate_verdict(planned, problems),
        problems=tuple(problems),
        libraries=next((receipt.libraries for receipt in reversed(receipts.values())), {}),
        digests=_digests(receipts),
        config=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        commands=COMMANDS,
    )


def _stage_row(receipt: Receipt) -> StageRow:
    counts = receipt.counts
    ended = (
        {"kept": counts.kept, "rejected": counts.rejected, "errored": counts.errored} if counts.in_ else {}
    )
    return StageRow(
        stage=receipt.stage,
        seconds=receipt.seconds,
        peak_rss_mb=receipt.peak_rss_mb,
        fingerprint=receipt.fingerprint,
        records_in=counts.in_ or None,
        rejects=receipt.reasons,
        dropped_texts=receipt.info.get(DROPPED_TEXTS) or {},
        **ended,
    )


def _kept(fresh: Mapping[str, Planned]) -> Iterator[AltExample]:
    """Kept records: the first of each part in turn, so that the examples come from all over."""
    columns = ["image", "alt_text", "url", "judge_score"]
    for row in islice(_in_turn(_files(fresh, "filter", f"{FILTERED_FOLDER}/"), columns), KEPT_SHOWN):
        yield AltExample(row["image"], row["alt_text"], row["url"], judge_score=row["judge_score"])


def _captions(made: Mapping[str, Planned]) -> Iterator[CaptionExample]:
    """Images with their alt text and every kind of caption."""
    kinds = CAPTION_KINDS.values()
    columns = ["image", ALT_COLUMN, "judge_score"]
    columns += [column for kind in kinds for column in (kind.column, kind.score_column)]
    for row in islice(_in_turn(_files(made, "recaption", "captioned/"), columns), CAPTIONS_SHOWN):
        alt = ScoredCaption("alt text", row[ALT_COLUMN] or "(dropped)", row["judge_score"])
        written = (ScoredCaption(kind.name, row[kind.column], row[kind.score_column]) for kind in kinds)
        yield CaptionExample(row["image"], (alt, *written))


def _caption_truth(receipts: Mapping[str, Receipt]) -> Iterator[CaptionTruth]:
    """How many of the captioner's captions are true and complete, where the annotators could tell."""
    annotators = receipts.get("annotators")
    by_kind = annotators.info.get(CAPTION_TRUTH) if annotators else None
    for kind, shares in by_kind.items() if isinstance(by_kind, dict) else ():
        if isinstance(shares, dict):
            yield CaptionTruth(str(kind), shares.get("entirely_true"), shares.get("complete"))


def _history(home: Path, name: str, problems: list[str]) -> ModelHistory | None:
    """Promotions, refusals and rollbacks of one registered name, the newest first."""
    try:
        moves = [change for change in history(home, name=name) if change.action != GATE][-MOVES_SHOWN:]
    except StraightshotError as error:  # a server that is away
        problems.append(str(error))
        return None
    if not moves:
        return None
    models = [
        MeasuredModel(
            (change.at[:16].replace("T", " "), change.action, change.after), quality_of_change(change)
        )
        for change in reversed(moves)
    ]
    groups = tuple(ModelGroup(group.title, group.rows) for group in compared(models))
    return ModelHistory(("at", "what", "version", *COLUMNS), LEGEND, groups)


def _studies(home: Path, problems: list[str]) -> Iterator[StudyTable]:
    """The tables of the finished studies, of each name the newest."""
    receipts = [readable_receipt(path.parent) for path in (home / STUDY.name).glob(f"*/{RECEIPT}")]
    newest: dict[str, Receipt] = {}
    for receipt in sorted((r for r in receipts if r is not None), key=lambda r: r.finished_at):
        newest[str(receipt.config.get("name"))] = receipt
    for name in sorted(newest):
        try:
            yield read_table(home, newest[name])
        except (OSError, ValueError) as error:
            problems.append(f"the study {name}: {error}")


def _losses(fresh: Mapping[str, Planned]) -> Iterator[LossCurve]:
    for stage, model in (("train", "teacher"), ("distill", "student")):
        for path in _files(fresh, stage, CURVE):
            points = json.loads(path.read_text(encoding="utf-8"))
            images = [point["images_seen"] for point in points]
            losses = [point["values"]["loss"] for point in points]
            yield LossCurve(stage, model, images, losses, tuple(_held_out(points)))


def _held_out(points: Iterable[Mapping[str, Any]]) -> Iterator[tuple[float, Mapping[str, float]]]:
    """(images seen, loss on held-out images by the times' bin) of the points of a curve that have it."""
    for point in points:
        if VALIDATION_LOSS in point["values"]:
            bins = {
                name.removeprefix(f"{VALIDATION_LOSS}_"): value
                for name, value in point["values"].items()
                if name.startswith(f"{VALIDATION_LOSS}_")
            }
            yield point["images_seen"], {**bins, "mean": point["values"][VALIDATION_LOSS]}


def _metrics(fresh: Mapping[str, Planned], problems: list[str]) -> Metrics | None:
    """The metrics that evaluate wrote; a file that cannot be read is added to the problems."""
    paths = _files(fresh, "evaluate", METRICS_FILE)
    try:
        return read_metrics(paths[0]) if paths else None
    except ValueError as error:
        problems.append(str(error))
        return None


def _gate_verdict(planned: Iterable[Planned], problems: list[str]) -> GateVerdict | None:
    """The gate's decision; one that refused has no receipt, and its output is read all the same."""
    promote = next((plan for plan in planned if plan.stage.name == "promote"), None)
    if promote is None or promote.path is None:
        return None
    promote.files(DECISION_FILE)
    path = promote.path / DECISION_FILE
    if not path.is_file():
        return None
    version = promote.receipt.info.get("version") if promote.fresh and promote.receipt else None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        checks = tuple(GateCheck(check["text"], check["passed"]) for check in document["checks"])
        return GateVerdict(document["verdict"] == "promoted", version, checks)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"{path}: not a gate's decision ({error}); run `straightshot run --force promote`")
        return None


def _digests(receipts: Mapping[str, Receipt]) -> dict[str, str]:
    """What went in and what came out, by the digests of its content."""
    digests = {}
    for name, receipt in receipts.items():
        for source in ("labelled", "corpus"):
            for digest in receipt.inputs.get(source, []):
                digests[source] = digest
        digests[name] = receipt.digest
    return digests


def _files(fresh: Mapping[str, Planned], stage: str, prefix: str) -> list[Path]:
    """Files under `prefix` of a fresh stage's output, as its receipt lists them, at most PARTS_READ."""
    plan = fresh.get(stage)
    return plan.files(prefix, PARTS_READ) if plan is not None else []


def _in_turn(paths: Sequence[Path], columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of Parquet files: the first row of each, then the second of each, and so on."""
    lanes = [_rows_of(path, columns) for path in paths]
    return (row for turn in zip_longest(*lanes) for row in turn if row is not None)


def _rows_of(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(path).iter_batches(batch_size=16, columns=columns):
        yield from batch.to_pylist()
