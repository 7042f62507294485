"""However the filter's work is cut, interrupted or killed, the bytes are the same."""

import os
import signal
from pathlib import Path

import pyarrow.parquet as pq

from components.corpus.readers import open_corpus
from pipelines.execution.engine import Engine
from pipelines.stage import SCRATCH
from pipelines.stages.filter import MeasureWorker
from pipelines.store.parts import Parts
from tests.forks import KILLED, imported_once, status_at
from tests.pipelines.one_by_one import OneByOne
from tests.pipelines.stages.crashing_record import CRASHES, draw_or_crash, examine_or_crash
from tests.pipelines.stages.filter.small_filter import SMALL, contents, output, run, write_corpus

imported_once("open_clip", "py3langid.langid", "scipy.fft")


def test_order_of_work_does_not_show_in_the_bytes(small: str, annotators: Path, tmp_path: Path):
    forwards = run(tmp_path / "forwards", small, annotators, SMALL)
    again = run(tmp_path, small, annotators, SMALL, engine=OneByOne(backwards=True))
    assert len([entry for entry in again.files if entry.path.startswith("filtered/")]) == 4
    assert contents(tmp_path, again) == contents(tmp_path / "forwards", forwards)
    assert not (output(tmp_path, again) / SCRATCH).exists()


def test_of_a_stream_only_what_is_not_finished_is_measured_again(
    small: str, annotators: Path, tmp_path: Path
):
    stream = open_corpus(small, SMALL.rows_per_fragment).streams[0]
    parts = Parts(tmp_path, "filter", "run")
    worker = MeasureWorker(parts, SMALL, "default", f"local-dir:{annotators / 'judge'}", 4)
    task = {"fragments": [fragment.to_dict() for fragment in stream]}
    whole = worker(task)
    assert whole.counts.in_ == 40
    files = [tmp_path / entry.path for entry in whole.files]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    (tmp_path / "parts" / "part-00001.json").unlink()
    assert worker(task) == whole
    again = {path for path in files if path.stat().st_mtime_ns != before[path][1]}
    assert {path.stem for path in again} == {"part-00001"}
    assert {path: path.read_bytes() for path in files} == {path: data for path, (data, _) in before.items()}


def test_a_record_that_crashes_its_worker_is_quarantined_and_its_neighbours_are_not(
    small: str, annotators: Path, tmp_path: Path, monkeypatch
):
    """The worker dies once; started again, it goes on as if the record had any other fault.

    Another one crashes only when it is drawn for the report: that costs it no more than its small image.
    """
    monkeypatch.setattr("pipelines.stages.filter.examine", examine_or_crash)
    monkeypatch.setattr("pipelines.stages.filter.draw", draw_or_crash)
    rows = pq.read_table(small.removeprefix("parquet:")).to_pylist()[:20]
    rows[7] |= {"alt_text": CRASHES}
    rows[8] |= {"alt_text": None, "image": CRASHES.encode(), "url": "https://drawn.example"}
    (stream,) = open_corpus(write_corpus(tmp_path / "web.parquet", rows)).streams
    parts = Parts(tmp_path, "filter", "run")
    worker = MeasureWorker(parts, SMALL, "default", f"local-dir:{annotators / 'judge'}", 1)
    task = {"fragments": [fragment.to_dict() for fragment in stream]}
    if (child := os.fork()) == 0:
        worker(task)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGSEGV
    receipt = worker(task)
    assert receipt.counts.in_ == 20 and receipt.reasons["quarantined"] == 1
    rejects = pq.read_table(tmp_path / "rejects" / "part-00000.parquet").to_pylist()
    (quarantined,) = [row for row in rejects if row["reason"] == "quarantined"]
    assert (quarantined["url"], quarantined["detail"]) == (rows[7]["url"], "ended its process: SIGSEGV")
    examples = pq.read_table(tmp_path / "reject_examples" / "part-00000.parquet").to_pylist()
    problems = {row["key"]: row["problem"] for row in examples if row["thumbnail"] is None}
    (drawn,) = [row for row in rejects if row["url"] == rows[8]["url"]]
    assert drawn["reason"] == "alt_missing" and problems[drawn["key"]] == "ended its process: SIGSEGV"
    assert problems[quarantined["key"]] == "not opened again"

    monkeypatch.undo()
    rows[7] |= {"alt_text": None}
    (stream,) = open_corpus(write_corpus(tmp_path / "web.parquet", rows)).streams
    other = MeasureWorker(
        Parts(tmp_path / "other", "filter", "run"), SMALL, "default", f"local-dir:{annotators / 'judge'}", 1
    )
    other({"fragments": [fragment.to_dict() for fragment in stream]})
    part = "filtered/part-00000.parquet"
    assert (tmp_path / part).read_bytes() == (tmp_path / "other" / part).read_bytes()


def test_ray_gives_the_same_bytes(small: str, annotators: Path, tmp_path: Path):
    alone = run(tmp_path / "alone", small, annotators, SMALL)
    with Engine(workers=2) as engine:
        together = run(tmp_path / "together", small, annotators, SMALL, engine)
    assert contents(tmp_path / "together", together) == contents(tmp_path / "alone", alone)


FAULTS = (
    "filter.part.before_rename:3",
    "filter.part.before_receipt:2",
    "filter.part_receipt.before_rename:2",
    "filter.part.before_rename:11",  # the fragments are measured; the parts are being written
    "filter.part.before_receipt:6",
    "filter.receipt.before_rename:1",
)


def test_killed_anywhere_and_run_again_gives_the_same_bytes(small: str, annotators: Path, tmp_path: Path):
    home = tmp_path / "whole"
    receipt = run(home, small, annotators, SMALL)
    homes = {fault: tmp_path / fault.replace(":", "-") for fault in FAULTS}
    for fault, path in homes.items():
        assert (fault, status_at(fault, run, path, small, annotators, SMALL)) == (fault, KILLED)
        assert not (path / "filter" / receipt.fingerprint / "receipt.json").exists()
        again = run(path, small, annotators, SMALL)
        assert contents(path, again) == contents(home, receipt)
        assert not list(output(path, again).rglob("*.tmp-*"))
