"""What every data stage's part has in common: two files, counts that add up, and pages that are not large."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.corpus.rejection import Rejection
from components.corpus.schemas import REJECTS, Reason
from pipelines.stages.data.part_records import combine, open_part, reject_row, write_table_part
from pipelines.store.parts import Parts

RECORD = {"key": "ab", "alt_text": "a cat", "url": None, "image": b"not copied"}


def kept(count: int, image_bytes: int = 10) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {"key": [str(n) for n in range(count)], "image": [rng.bytes(image_bytes) for _ in range(count)]}
    )


def test_a_reject_says_where_and_why_and_keeps_the_texts():
    row = reject_row("filter", RECORD, Rejection(Reason.ALT_SPAM, "free shipping"))
    assert row == {
        "key": "ab",
        "stage": "filter",
        "reason": "alt_spam",
        "detail": "free shipping",
        "alt_text": "a cat",
        "url": None,
    }
    assert set(row) == set(REJECTS.names)


def test_the_counts_are_those_of_the_files_and_an_error_is_no_rejection(tmp_path: Path):
    reasons = [Reason.ALT_SPAM, Reason.ERRORED, Reason.ALT_SPAM]
    rejects = [reject_row("filter", RECORD, Rejection(reason, "why")) for reason in reasons]
    receipt = write_table_part(Parts(tmp_path, "filter", "run"), "part-0", "filtered", kept(5), rejects)
    assert receipt.counts.as_dict() == {"in": 8, "kept": 5, "rejected": 2, "errored": 1}
    assert receipt.reasons == {"alt_spam": 2, "errored": 1}
    assert [entry.path for entry in receipt.files] == ["filtered/part-0.parquet", "rejects/part-0.parquet"]
    assert pq.read_table(tmp_path / "filtered/part-0.parquet")["key"].to_pylist() == list("01234")
    written = pq.read_table(tmp_path / "rejects/part-0.parquet")
    assert written.schema == REJECTS
    assert written["reason"].to_pylist() == ["alt_spam", "errored", "alt_spam"]


def test_parts_made_in_one_pass_are_handed_back_together(tmp_path: Path):
    parts = Parts(tmp_path, "filter", "run")
    rejects = [reject_row("filter", RECORD, Rejection(Reason.ALT_SPAM, "why"))]
    receipts = [write_table_part(parts, f"part-{n}", "filtered", kept(n), rejects) for n in range(3)]
    together = combine("part-0", receipts)
    assert together.counts.as_dict() == {"in": 6, "kept": 3, "rejected": 3, "errored": 0}
    assert together.reasons == {"alt_spam": 3}
    assert [entry for receipt in receipts for entry in receipt.files] == list(together.files)


def test_a_part_is_read_a_few_images_at_a_time(tmp_path: Path):
    """64 images of 1 MiB: their part is read in pages of 16, not as one of 64."""
    write_table_part(Parts(tmp_path, "filter", "run"), "part-0", "filtered", kept(64, 2**20), [])
    before, held = pa.total_allocated_bytes(), []
    for batch in open_part(tmp_path / "filtered/part-0.parquet").iter_batches(4):
        held.append(pa.total_allocated_bytes() - before)
        del batch
    assert len(held) == 16
    assert max(held) < 48 * 2**20, "three pages, never the whole"
