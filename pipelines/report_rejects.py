"""The rejected records that the run's page shows: of each stage and reason how many, and some of them.

Those that a stage stored with a small image (stages/data/reject_examples.py); of a reason that has none, some
of the rejects without one. No part is read whole but for the latter, and no image of the corpus at all.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.corpus.schemas import Reason
from components.filtering.alt_text_cleaning import clean_alt_text
from components.reporting.report_data import RejectedRecord, RejectedRecords
from pipelines.planning.planned import Planned
from pipelines.stages.data.part_records import EXAMPLES_FOLDER, REJECTS_FOLDER, parquet_path
from pipelines.stages.data.reject_examples import MOST_PARTS, SHOWN

STAGES = ("fetch", "filter", "recaption", "shard")
PARTS_READ = 32  # for rejects of which no image was stored
CLEANED_CHARACTERS = 4000  # of an alt text; the page shows fewer, and cleaning a megabyte takes a second
NOT_STORED = "no small image is stored"

Row = Mapping[str, Any]


def rejected_records(fresh: Mapping[str, Planned]) -> Iterator[RejectedRecords]:
    """By stage, then by reason, the most frequent first."""
    for stage in STAGES:
        plan = fresh.get(stage)
        if plan is None or plan.receipt is None or not plan.receipt.reasons:
            continue
        examples = _examples(plan, plan.receipt.reasons)
        for reason, records in sorted(plan.receipt.reasons.items(), key=lambda item: (-item[1], item[0])):
            yield RejectedRecords(stage, reason, records, examples.get(reason, ()))


def _examples(plan: Planned, reasons: Collection[str]) -> dict[str, tuple[RejectedRecord, ...]]:
    """Some rejects of each reason, by their keys; none of what was withdrawn."""
    stored = [
        (row, path.stem)
        for path in plan.files(f"{EXAMPLES_FOLDER}/", MOST_PARTS)
        for row in pq.ParquetFile(path).read().to_pylist()
    ]
    originals = {row["key"]: row["thumbnail"] for row, _ in stored if row["reason"] is None}
    chosen: dict[str, list[tuple[Row, str]]] = {}
    for row, part in sorted(stored, key=lambda one: str(one[0]["key"])):
        of_reason = chosen.setdefault(row["reason"] or "", [])
        if row["reason"] and len(of_reason) < SHOWN:
            of_reason.append((row, part))
    keys: dict[str, set[str]] = {}
    for row, part in (one for of_reason in chosen.values() for one in of_reason):
        keys.setdefault(part, set()).add(row["key"])
    known = {
        (row["key"], row["reason"]): row
        for part, wanted in keys.items()
        for path in plan.files(parquet_path(REJECTS_FOLDER, part))
        for row in pq.read_table(path, filters=pc.field("key").isin(sorted(wanted))).to_pylist()
    }
    examples = {
        reason: tuple(
            _shown(known[row["key"], reason], row["thumbnail"], row["problem"], originals.get(row["of"]))
            for row, _ in of_reason
        )
        for reason, of_reason in chosen.items()
    }
    return examples | _without_images(plan, [reason for reason in reasons if reason not in examples])


def _without_images(plan: Planned, reasons: Collection[str]) -> dict[str, tuple[RejectedRecord, ...]]:
    """Rejects of these reasons from the first parts."""
    wanted = sorted(set(reasons) - {Reason.WITHDRAWN.value})
    found: dict[str, list[Row]] = {}
    for path in plan.files(f"{REJECTS_FOLDER}/", PARTS_READ) if wanted else ():
        table = pq.read_table(path, filters=pc.field("reason").isin(wanted))
        for row in table.sort_by("key").to_pylist():
            found.setdefault(row["reason"], []).append(row)
    return {
        reason: tuple(_shown(row, None, NOT_STORED) for row in rows[:SHOWN]) for reason, rows in found.items()
    }


def _shown(
    row: Row, thumbnail: bytes | None, problem: str | None, original: bytes | None = None
) -> RejectedRecord:
    text = row["alt_text"]
    return RejectedRecord(
        thumbnail=thumbnail,
        alt_text=None if text is None else clean_alt_text(text[:CLEANED_CHARACTERS]),
        url=row["url"],
        detail=row["detail"],
        problem=problem or "",
        original=original,
    )
