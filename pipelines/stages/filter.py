"""filter: the raw corpus into records whose text and picture are good, and a reason for every other one.

    HOME/filter/<fingerprint>/filtered/part-00000.parquet, ..., rejects/part-00000.parquet, ...

Part n is fragment n of the corpus as `open_corpus` plans it. Three steps: fragments are measured in parallel
(alt text, image, hashes, judge) into intermediate parts; what only the whole corpus can tell (duplicates, the
judge's bar) is decided here from their short columns, in corpus order; then each part is written for good.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from components.corpus.fragments import Fragment, RawRecord
from components.corpus.images import ImageRules
from components.corpus.rejection import Rejection
from components.corpus.schemas import FILTERED, REJECTS, Reason, record_key
from components.filtering.alt_text import AltTextRules
from components.filtering.duplicates import DuplicateRules
from components.filtering.examine import Kept, Rejected, examine
from components.filtering.selection import Measured, select
from pipelines.errors import StageFailed
from pipelines.stage import SCRATCH, Stage, StageConfig, Work
from pipelines.stages.model_runtime import JUDGE_RUNTIME, ModelRuntime, judge_name, load_judge
from pipelines.store.receipts import Counts, PartReceipt, Parts

if TYPE_CHECKING:
    import torch

FILTERED_FOLDER = "filtered"
REJECTS_FOLDER = "rejects"
FEW_PARTS = 32
MEASURED_COLUMNS = ("key", "sha256", "phash", "judge_score")  # in the order of Measured's fields
COMPRESSION = {name: "none" if name == "image" else "zstd" for name in FILTERED.names}  # images are packed


class FilterConfig(StageConfig):
    """What a record must be to go on. The defaults suit the open web; a closed domain may loosen them."""

    alt_text: AltTextRules = AltTextRules()
    image: ImageRules = ImageRules()
    duplicates: DuplicateRules = DuplicateRules()
    judge_threshold: float | None = Field(
        default=None, ge=-1, le=1, description="least cosine of image and alt text; it depends on the judge"
    )
    judge_keep_fraction: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of the records, best scores first, that goes on (DataComp: 0.3)",
    )
    judge: ModelRuntime = JUDGE_RUNTIME
    rows_per_fragment: int = Field(default=512, ge=1, description="records measured and written together")


def run(work: Work) -> list[PartReceipt]:
    """Measure the fragments, decide over all of them, write the parts."""
    from components.corpus.readers import open_corpus

    config: FilterConfig = work.config
    corpus = open_corpus(work.input("corpus").location, config.rows_per_fragment)
    measured = work.parts.within(f"{SCRATCH}/measured")
    with work.progress.task(work.stage, corpus.rows, "records") as advance:
        receipts = work.engine.map_parts(
            MeasureWorker,
            [_task(fragment) for fragment in corpus.fragments],
            setup={
                "parts": measured,
                "config": config,
                "snapshot": work.snapshot,
                "judge": judge_name(work.input("annotators")),
            },
            on_done=lambda receipt: advance(receipt.counts.in_),
        )
    rejected = _decide([measured.path(_filtered(receipt.name)) for receipt in receipts], config)
    tasks = [
        {"name": receipt.name, "rejected": {str(row): [why.reason, why.detail] for row, why in part.items()}}
        for receipt, part in zip(receipts, rejected, strict=True)
    ]
    finished = _finish(work, measured, tasks)
    _check_something_is_left(finished)
    return finished


def key_of(record: RawRecord, snapshot: str) -> str:
    """The key by which a raw record is known from here on, kept or rejected."""
    return record_key(record.image or b"", f"{snapshot}:{record.url or ''}")


class MeasureWorker:
    """Measures one fragment: the survivors with their measures, the others with their reasons."""

    def __init__(self, parts: Parts, config: FilterConfig, snapshot: str, judge: str) -> None:
        import torch

        torch.set_num_threads(1)  # a score's last bits depend on it; workers share the cores anyway
        self.parts, self.config, self.snapshot = parts, config, snapshot
        self.judge = load_judge(judge, config.judge, "filter.judge")

    def __call__(self, task: Any) -> PartReceipt:
        from components.corpus.readers import read_fragment

        name: str = task["name"]
        if (finished := self.parts.finished(name)) is not None:
            return finished
        survivors: list[dict[str, Any]] = []
        pictures: list[torch.Tensor] = []
        refused: list[dict[str, Any]] = []
        for record in read_fragment(Fragment.from_dict(task["fragment"])):
            key = key_of(record, self.snapshot)
            found = examine(record, key, self.config.alt_text, self.config.image)
            if isinstance(found, Rejected):
                refused.append(_reject_row(found.key, found.rejection, found.alt_text, found.url))
            else:
                survivors.append(_kept_row(found))
                pictures.append(self.judge.prepare(found.picture))
        scores = self.judge.score(pictures, [row["alt_text"] for row in survivors])
        for row, score in zip(survivors, scores.tolist(), strict=True):
            row["judge_score"] = score
        return _write(self.parts, name, pa.Table.from_pylist(survivors, schema=FILTERED), refused)


class FinishWorker:
    """Writes one part for good: what was measured, less what the whole corpus decided against."""

    def __init__(self, measured: Parts, parts: Parts) -> None:
        self.measured, self.parts = measured, parts

    def __call__(self, task: Any) -> PartReceipt:
        name: str = task["name"]
        if (finished := self.parts.finished(name)) is not None:
            return finished
        survivors = pq.ParquetFile(self.measured.path(_filtered(name))).read()
        refused = pq.ParquetFile(self.measured.path(_rejects(name))).read().to_pylist()
        rejected = {
            int(row): Rejection(Reason(reason), detail) for row, (reason, detail) in task["rejected"].items()
        }
        texts = survivors.select(["key", "alt_text", "url"]).to_pylist()
        refused += [_reject_row(rejection=rejected[row], **texts[row]) for row in sorted(rejected)]
        keep = pa.array([row not in rejected for row in range(len(texts))], pa.bool_())
        return _write(self.parts, name, survivors.filter(keep), refused)


def _finish(work: Work, measured: Parts, tasks: list[dict[str, Any]]) -> list[PartReceipt]:
    """Write the parts, few of them here: a pool takes longer to start."""
    setup = {"measured": measured, "parts": work.parts}
    if len(tasks) <= FEW_PARTS:
        finish = FinishWorker(**setup)
        return [finish(task) for task in tasks]
    return work.engine.map_parts(FinishWorker, tasks, setup=setup, on_done=lambda _: None)


def _decide(paths: Sequence[Path], config: FilterConfig) -> list[dict[int, Rejection]]:
    """For each measured part, the rows that the whole corpus decides against."""
    rows: list[Measured] = []
    starts = []
    for path in paths:
        starts.append(len(rows))
        table = pq.ParquetFile(path).read(columns=list(MEASURED_COLUMNS))
        rows += map(Measured, *(table[name].to_pylist() for name in MEASURED_COLUMNS))
    rejected: list[dict[int, Rejection]] = [{} for _ in paths]
    part = 0
    found = select(rows, config.duplicates, config.judge_threshold, config.judge_keep_fraction)
    for row in sorted(found):
        while part + 1 < len(starts) and starts[part + 1] <= row:
            part += 1
        rejected[part][row - starts[part]] = found[row]
    return rejected


def _task(fragment: Fragment) -> dict[str, Any]:
    return {"name": f"part-{fragment.index:05d}", "fragment": fragment.to_dict()}


def _kept_row(survivor: Kept) -> dict[str, Any]:
    """A row of FILTERED, but for the judge's score."""
    return {name: getattr(survivor, name) for name in FILTERED.names if name != "judge_score"}


def _reject_row(key: str, rejection: Rejection, alt_text: str | None, url: str | None) -> dict[str, Any]:
    return {
        "key": key,
        "stage": "filter",
        "reason": rejection.reason.value,
        "detail": rejection.detail,
        "alt_text": alt_text,
        "url": url,
    }


def _write(parts: Parts, name: str, survivors: pa.Table, refused: list[dict[str, Any]]) -> PartReceipt:
    """Commit a part's two files; its counts add up by construction."""
    reasons = Counter(row["reason"] for row in refused)
    errored = reasons[Reason.ERRORED.value]
    counts = {
        "in": len(survivors) + len(refused),
        "kept": len(survivors),
        "rejected": len(refused) - errored,
        "errored": errored,
    }
    rejects = pa.Table.from_pylist(refused, schema=REJECTS)
    return parts.write(
        name,
        {
            _filtered(name): partial(pq.write_table, survivors, compression=COMPRESSION),
            _rejects(name): partial(pq.write_table, rejects, compression="zstd"),
        },
        counts=Counts.model_validate(counts),
        reasons=dict(sorted(reasons.items())),
    )


def _check_something_is_left(receipts: Iterable[PartReceipt]) -> None:
    reasons: Counter[str] = Counter()
    kept = 0
    for receipt in receipts:
        kept += receipt.counts.kept
        reasons.update(receipt.reasons)
    if not kept:
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(3))
        raise StageFailed(
            f"filter: none of {reasons.total()} records is left ({told}); loosen filter.* for them"
        )


def _filtered(name: str) -> str:
    return f"{FILTERED_FOLDER}/{name}.parquet"


def _rejects(name: str) -> str:
    return f"{REJECTS_FOLDER}/{name}.parquet"


STAGE = Stage(name="filter", version=1, config_type=FilterConfig, inputs=("corpus", "annotators"), run=run)
