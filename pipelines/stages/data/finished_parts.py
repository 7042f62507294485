"""The filter's last step: what the whole corpus decides, applied to each measured part."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.corpus.small_images import small_image
from components.filtering.selection import ScoreLimits
from pipelines.errors import StageFailed
from pipelines.stages.data.duplicate_search import DECIDED
from pipelines.stages.data.evaluation_sets import same_text
from pipelines.stages.data.part_records import (
    DROPPED_FOLDER,
    EXAMPLES_FOLDER,
    FILTERED_FOLDER,
    REJECTS_FOLDER,
    Row,
    parquet_path,
    reject_row,
    write_table_part,
)
from pipelines.stages.data.reject_examples import Candidates, example_row
from pipelines.stages.data.search_results import SOURCES_FILE, Copy, decided_rows, image_at
from pipelines.store.parts import Parts
from pipelines.store.receipts import PartReceipt

NAME = "filter"
WITHDRAWN = Rejection(Reason.WITHDRAWN, "by a takedown")
PROMPT = Rejection(Reason.CONTAMINATED, "its alt text is a prompt of an evaluation")


class FinishWorker:
    """Writes one part for good: what was measured, less what the whole corpus decided against.

    A withdrawn record is rejected here, without its texts, and not before: its copies are still rejected as
    such, and no other record fares otherwise for its going.
    """

    def __init__(
        self,
        measured: Parts,
        parts: Parts,
        found: Parts,
        limits: ScoreLimits,
        prompts: frozenset[str],
        withdrawn: frozenset[str],
    ) -> None:
        self.measured, self.parts, self.found = measured, parts, found
        self.limits, self.prompts, self.withdrawn = limits, prompts, withdrawn

    def __call__(self, task: Any) -> PartReceipt:
        name: str = task["name"]
        if (finished := self.parts.finished(name)) is not None:
            return finished
        if self.measured.finished(name) is None:
            raise StageFailed(f"filter: what was measured of {name} is damaged; run the same command again")
        kept = self._read(FILTERED_FOLDER, name)
        rejects = self._read(REJECTS_FOLDER, name).to_pylist()
        columns = ["key", "alt_text", "url", "judge_score"]
        records = kept.select(columns).to_pylist()
        rejected = decided_rows(self.found.path(DECIDED), task["order"], len(kept))
        for row, record in enumerate(records):
            if (why := self._rejection(record, rejected.get(row))) is not None:
                rejected[row] = why
        rejects += [reject_row(NAME, records[row], rejected[row]) for row in sorted(rejected)]
        rejects = [_withdrawn_row(row) if row["key"] in self.withdrawn else row for row in rejects]
        examples = self._examples(task, kept["key"].to_pylist(), kept["image"], rejected)
        goes_on = pa.array([row not in rejected for row in range(len(records))], pa.bool_())
        kept = kept.filter(goes_on)
        dropped = self._dropped(name, set(kept["key"].to_pylist()))
        return write_table_part(self.parts, name, FILTERED_FOLDER, kept, rejects, dropped, examples)

    def _examples(
        self, task: Any, keys: list[str], images: pa.ChunkedArray, rejected: Mapping[int, Rejection]
    ) -> list[Row]:
        """Some rejects to be looked at: of those that were measured, and of those that went before."""
        name, row_of = task["name"], {keys[row]: row for row in rejected}
        chosen = Candidates(task["examples"])
        for row, rejection in rejected.items():
            chosen.offer(rejection.reason, keys[row], None)
        examples = chosen.rows(lambda _, key: small_image(images[row_of[key]].as_py()))
        originals: dict[str, bytes] = {}
        for example in examples:
            rejection = rejected[row_of[example["key"]]]
            found = self._original(rejection) if isinstance(rejection, Copy) else None
            if found is not None:
                example["of"], originals[found[0]] = found[0], found[1]
        examples += [example_row(key, None, small_image(image)) for key, image in originals.items()]
        if self.measured.path(parquet_path(EXAMPLES_FOLDER, name)).exists():
            before = self._read(EXAMPLES_FOLDER, name).to_pylist()
            examples += [row for row in before if row["key"] not in self.withdrawn]
        return sorted(examples, key=lambda row: (row["reason"] or "", row["key"]))

    def _original(self, copy: Copy) -> tuple[str, bytes] | None:
        """Key and image of what it is a copy of, where that may be shown."""
        found = image_at(self.found.path(SOURCES_FILE), copy.of)
        return None if found is None or found[0] in self.withdrawn else found

    def _dropped(self, name: str, kept: set[str]) -> list[Row]:
        """The dropped texts of the records that go on."""
        if not self.measured.path(parquet_path(DROPPED_FOLDER, name)).exists():
            return []
        return [row for row in self._read(DROPPED_FOLDER, name).to_pylist() if row["key"] in kept]

    def _rejection(self, record: Row, decided: Rejection | None) -> Rejection | None:
        """Why a record does not go on, in the order of the rules; None if it does."""
        if record["key"] in self.withdrawn:
            return WITHDRAWN
        if self.prompts and same_text(record["alt_text"]) in self.prompts:
            return PROMPT
        score = record["judge_score"]
        below = self.limits.below_threshold(score)
        return below or decided or self.limits.beyond_share(score, record["key"])

    def _read(self, folder: str, name: str) -> pa.Table:
        return pq.ParquetFile(self.measured.path(parquet_path(folder, name))).read()


def _withdrawn_row(row: Row) -> Row:
    return reject_row(NAME, {"key": row["key"], "alt_text": None, "url": None}, WITHDRAWN)
