"""The filter stage: junk goes and says why, the rest stays, and the bytes never vary."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.corpus.readers import open_corpus, read_fragment
from components.corpus.schemas import CORPUS, FILTERED, REJECT_EXAMPLES, REJECTS, Reason, record_key
from components.corpus.small_images import MOST_BYTES, SIDE
from components.filtering.alt_text import AltTextRules
from components.filtering.duplicates import DuplicateRules
from components.toyworld.web import ToyWeb, write_toy_web
from pipelines.errors import StageFailed
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.stage import SCRATCH, Input, run_stage
from pipelines.stages.data.part_records import EXAMPLES_FOLDER
from pipelines.stages.data.reject_examples import (
    LEAST_IN_PART,
    MOST_PARTS,
    SHOWN,
    Candidates,
    examples_in_part,
)
from pipelines.stages.filter import STAGE, FilterConfig, MeasureWorker
from pipelines.store.parts import Parts
from pipelines.store.receipts import Receipt
from tests.pipelines.one_by_one import OneByOne
from tests.pipelines.stages.crashing_record import CRASHES, draw_or_crash, examine_or_crash
from tests.small_judge import save_judge

ROWS, SEED = 360, 3
CONFIG = FilterConfig(rows_per_fragment=64, alt_text=AltTextRules(languages=("en",)))
SMALL = FilterConfig(rows_per_fragment=20)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> ToyWeb:
    return write_toy_web(tmp_path_factory.mktemp("toy"), records=ROWS, seed=SEED, labelled=1)


@pytest.fixture(scope="module")
def annotators(tmp_path_factory) -> Path:
    """An annotators output with an untrained judge."""
    return save_judge(tmp_path_factory.mktemp("annotators") / "judge").parent


def run(
    home: Path,
    corpus: str,
    annotators: Path,
    config: FilterConfig = CONFIG,
    engine: Engine | None = None,
    log: TextIO | None = None,
    withdrawn: tuple[str, ...] = (),
) -> Receipt:
    return run_stage(
        STAGE,
        config,
        {
            "corpus": (Input("corpus", corpus, open_corpus(corpus).digest(), withdrawn=withdrawn),),
            "annotators": (Input("annotators", str(annotators), "a" * 64),),
        },
        home=home,
        snapshot="default",
        engine=engine or OneByOne(),
        progress=Progress(log, quiet=log is None),
    )


def output(home: Path, receipt: Receipt) -> Path:
    return home / "filter" / receipt.fingerprint


def contents(home: Path, receipt: Receipt) -> dict[str, bytes]:
    return {entry.path: (output(home, receipt) / entry.path).read_bytes() for entry in receipt.files}


def table(home: Path, receipt: Receipt, folder: str) -> pa.Table:
    paths = sorted(e.path for e in receipt.files if e.path.startswith(f"{folder}/"))
    return pa.concat_tables([pq.ParquetFile(output(home, receipt) / path).read() for path in paths])


def write_corpus(path: Path, rows: list[dict[str, Any]], row_group_size: int | None = None) -> str:
    pq.write_table(pa.Table.from_pylist(rows, schema=CORPUS), path, row_group_size=row_group_size)
    return f"parquet:{path}"


@pytest.fixture(scope="module")
def small(toy: ToyWeb, tmp_path_factory) -> str:
    """The first 80 records, in four fragments as SMALL cuts them: two of one row group, then two more."""
    rows = pq.read_table(toy.web).to_pylist()[:80]
    corpus = write_corpus(tmp_path_factory.mktemp("small") / "web.parquet", rows, row_group_size=40)
    plan = open_corpus(corpus, SMALL.rows_per_fragment)
    assert [[fragment.rows for fragment in stream] for stream in plan.streams] == [[20, 20], [20, 20]]
    return corpus


@pytest.fixture(scope="module")
def done(toy: ToyWeb, annotators: Path, tmp_path_factory) -> tuple[Path, Receipt]:
    home = tmp_path_factory.mktemp("home")
    return home, run(home, f"parquet:{toy.web}", annotators)


def test_every_record_ends_once_and_the_counts_say_so(done, toy: ToyWeb):
    home, receipt = done
    kept, rejects = table(home, receipt, "filtered"), table(home, receipt, "rejects")
    assert kept.schema == FILTERED
    assert rejects.schema == REJECTS
    keys = [
        record_key(raw.image or b"", f"default:{raw.url or ''}")
        for fragment in open_corpus(f"parquet:{toy.web}").fragments
        for raw in read_fragment(fragment)
    ]
    assert sorted(kept["key"].to_pylist() + rejects["key"].to_pylist()) == sorted(keys)
    assert len(set(kept["key"].to_pylist())) == len(kept)
    counts = receipt.counts.as_dict()
    assert counts == {"in": ROWS, "kept": len(kept), "rejected": len(rejects), "errored": 0}
    assert receipt.reasons == {
        reason: rejects["reason"].to_pylist().count(reason)
        for reason in sorted(set(rejects["reason"].to_pylist()))
    }


def test_a_dropped_text_leaves_its_record_to_the_captioner_and_the_counts_add_up(
    done, toy: ToyWeb, annotators: Path, tmp_path
):
    """File names, and with them the texts of a withdrawn record, which are nowhere afterwards."""
    home, before = done
    named = [r for r in table(home, before, "rejects").to_pylist() if r["reason"] == "alt_filename"]
    rules = CONFIG.alt_text.model_copy(update={"policy": {Reason.ALT_FILENAME: "recaption"}})
    config = CONFIG.model_copy(update={"alt_text": rules, "judge_threshold": -1.0})
    gone = named[0]["key"]
    receipt = run(tmp_path, f"parquet:{toy.web}", annotators, config, withdrawn=(gone,))

    kept = {row["key"]: row for row in table(tmp_path, receipt, "filtered").to_pylist()}
    rejects = {row["key"]: row for row in table(tmp_path, receipt, "rejects").to_pylist()}
    dropped = {row["key"]: row for row in table(tmp_path, receipt, "dropped_texts").to_pylist()}
    assert len(kept) + len(rejects) == receipt.counts.in_ == ROWS
    assert dropped.keys() == {key for key, row in kept.items() if row["alt_text"] is None}
    assert receipt.info == {"dropped_texts": {"alt_filename": len(dropped)}}
    assert gone not in dropped
    for row in named[1:]:  # each went on, or its image was turned away for a reason of its own
        if row["key"] in kept:
            assert kept[row["key"]]["judge_score"] is None
            assert kept[row["key"]]["language"] == "und"
            assert dropped[row["key"]] == row
        else:
            assert not rejects[row["key"]]["reason"].startswith("alt_")
    assert len(dropped) > len(named) / 2
    unaffected = table(home, before, "filtered").to_pylist()
    assert all(kept[row["key"]]["alt_text"] == row["alt_text"] for row in unaffected if row["key"] in kept)


def test_withdrawn_records_go_without_their_texts_and_no_other_record_fares_otherwise(
    done, toy: ToyWeb, annotators: Path
):
    """Of the three, one was kept, is the original of a copy, and one was rejected for its text."""
    home, before = done
    kept, rejects = table(home, before, "filtered"), table(home, before, "rejects").to_pylist()
    original = next(row["detail"] for row in rejects if row["reason"] == "near_duplicate").removeprefix("of ")
    by_text = next(row["key"] for row in rejects if row["reason"].startswith("alt_"))
    withdrawn = tuple(sorted({kept["key"][0].as_py(), original, by_text}))
    receipt = run(home, f"parquet:{toy.web}", annotators, withdrawn=withdrawn)

    assert receipt.fingerprint != before.fingerprint
    assert table(home, receipt, "filtered")["key"].to_pylist() == [
        key for key in kept["key"].to_pylist() if key not in withdrawn
    ]
    after = table(home, receipt, "rejects").to_pylist()
    taken = {row["key"]: (row["alt_text"], row["url"]) for row in after if row["reason"] == "withdrawn"}
    assert taken == dict.fromkeys(withdrawn, (None, None))
    assert [row for row in after if row["key"] not in withdrawn] == [
        row for row in rejects if row["key"] not in withdrawn
    ]
    assert receipt.counts.in_ == ROWS and receipt.reasons["withdrawn"] == 3
    examples = table(home, receipt, "reject_examples")
    assert not set(withdrawn) & {*examples["key"].to_pylist(), *examples["of"].to_pylist()}
    assert run(home, f"parquet:{toy.web}", annotators) == before


def test_some_rejects_of_each_reason_lie_beside_a_small_image(done, toy: ToyWeb):
    """Of each part and reason those with the smallest keys; copies with what they are copies of."""
    home, receipt = done
    rejects, examples = (table(home, receipt, folder) for folder in ("rejects", EXAMPLES_FOLDER))
    assert examples.schema == REJECT_EXAMPLES
    details = {(row["key"], row["reason"]): row["detail"] for row in rejects.to_pylist()}
    originals = {row["key"]: row["sha256"] for row in examples.to_pylist() if row["reason"] is None}
    raw = {hashlib.sha256(row["image"] or b"").hexdigest() for row in pq.read_table(toy.web).to_pylist()}
    for row in examples.to_pylist():
        assert (row["thumbnail"] is None) == bool(row["problem"])
        if row["thumbnail"] is not None:
            small = Image.open(io.BytesIO(row["thumbnail"]))
            assert small.format == "JPEG" and max(small.size) <= SIDE and len(row["thumbnail"]) <= MOST_BYTES
            assert row["sha256"] in raw
        if row["reason"] is not None:
            assert (row["key"], row["reason"]) in details
        if row["reason"] in ("image_broken", "image_missing"):
            assert row["thumbnail"] is None
        if row["reason"] in ("duplicate", "near_duplicate"):
            assert details[row["key"], row["reason"]] == f"of {row['of']}" and row["of"] in originals
    kept = table(home, receipt, "filtered")
    kept_images = dict(zip(kept["key"].to_pylist(), kept["sha256"].to_pylist(), strict=True))
    assert originals and originals.items() <= kept_images.items()

    for number in range(6):
        part = [
            pq.read_table(output(home, receipt) / folder / f"part-{number:05d}.parquet").to_pylist()
            for folder in ("rejects", EXAMPLES_FOLDER)
        ]
        for reason in {row["reason"] for row in part[0]}:
            keys, chosen = ([row["key"] for row in rows if row["reason"] == reason] for rows in part)
            assert chosen == sorted(keys)[: examples_in_part(number, 6)]


def test_what_is_kept_to_be_looked_at_is_bounded():
    for parts in (1, 5, 12, 256, 257, 10_000, 1_000_000):
        of_a_reason = sum(examples_in_part(index, parts) for index in range(parts))
        assert min(SHOWN, 2 * parts) <= of_a_reason <= LEAST_IN_PART * MOST_PARTS
    candidates = Candidates(2)
    for key in ("c", "a", "d", "a", "b"):
        candidates.offer("alt_url", key, None)
    candidates.offer("withdrawn", "0", b"")
    assert [row["key"] for row in candidates.rows(draw_or_crash)] == ["a", "b"]


def test_junk_goes_and_the_rest_stays(done, toy: ToyWeb):
    """With an untrained judge, only texts of other images come through."""
    home, receipt = done
    kept = set(table(home, receipt, "filtered")["url"].to_pylist())
    truth = pq.read_table(toy.truth).to_pylist()
    junk = {row["url"] for row in truth if row["junk"]}
    rejected_urls = {row["url"] for row in truth} - kept
    assert len(junk & rejected_urls) / len(rejected_urls) >= 0.95
    assert len(junk & rejected_urls) / len(junk) >= 0.9
    assert {row["junk_reason"] for row in truth if row["url"] in junk & kept} <= {"mismatch"}


def test_kept_records_carry_what_was_measured(done):
    home, receipt = done
    for row in table(home, receipt, "filtered").slice(0, 20).to_pylist():
        assert None not in row.values()
        assert row["alt_text"] == row["alt_text"].strip()
        assert min(row["width"], row["height"]) >= 64
        assert row["language"] in ("en", "und")
        assert -1 <= row["judge_score"] <= 1


def test_order_of_work_does_not_show_in_the_bytes(small: str, annotators: Path, tmp_path: Path):
    forwards = run(tmp_path / "forwards", small, annotators, SMALL)
    again = run(tmp_path, small, annotators, SMALL, engine=OneByOne(backwards=True))
    assert len([entry for entry in again.files if entry.path.startswith("filtered/")]) == 4
    assert contents(tmp_path, again) == contents(tmp_path / "forwards", forwards)
    assert not (output(tmp_path, again) / SCRATCH).exists()


def test_a_fragment_is_cut_by_bytes_and_every_record_ends_once(toy: ToyWeb, annotators: Path, tmp_path: Path):
    """The same records go on, whatever the fragments' size; a part holds no more bytes than asked for."""
    rows = pq.read_table(toy.web).to_pylist()[:120]
    corpus = write_corpus(tmp_path / "web.parquet", rows)
    whole = run(tmp_path / "whole", corpus, annotators)
    limit = sum(len(row["image"] or b"") for row in rows) // 8
    cut = run(tmp_path / "cut", corpus, annotators, CONFIG.model_copy(update={"fragment_bytes": limit}))
    parts = [entry.path for entry in cut.files if entry.path.startswith("filtered/")]
    assert 8 <= len(parts) <= 12
    assert cut.counts == whole.counts and cut.reasons == whole.reasons
    assert table(tmp_path / "cut", cut, "filtered") == table(tmp_path / "whole", whole, "filtered")
    for part in parts:
        images = pq.ParquetFile(output(tmp_path / "cut", cut) / part).read()["image"].to_pylist()
        assert sum(map(len, images)) < 2 * limit, "about: a fragment is cut by the average record"


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


def test_a_row_group_that_keeps_one_worker_busy_alone_is_named(toy: ToyWeb, annotators: Path, tmp_path: Path):
    rows = pq.read_table(toy.web).to_pylist()[:40]
    log = io.StringIO()
    for name, row_group_size in (("large", 40), ("small", 4)):
        corpus = write_corpus(tmp_path / f"{name}.parquet", rows, row_group_size)
        run(tmp_path / name, corpus, annotators, FilterConfig(rows_per_fragment=2), log=log)
    (warning,) = [line for line in log.getvalue().splitlines() if "one worker alone" in line]
    assert "large.parquet" in warning and "40 records" in warning


def test_ray_gives_the_same_bytes(small: str, annotators: Path, tmp_path: Path):
    alone = run(tmp_path / "alone", small, annotators, SMALL)
    engine = Engine(workers=2)
    try:
        together = run(tmp_path / "together", small, annotators, SMALL, engine)
    finally:
        engine.shutdown()
    assert contents(tmp_path / "together", together) == contents(tmp_path / "alone", alone)


FAULTS = (
    "filter.part.before_rename:3",
    "filter.part.before_receipt:2",
    "filter.part_receipt.before_rename:2",
    "filter.part.before_rename:11",  # the fragments are measured; the parts are being written
    "filter.part.before_receipt:6",
    "filter.receipt.before_rename:1",
)

# One process pays for the imports; each fault kills a child of it.
KILLED_RUNS = """
import json, os, sys
from pathlib import Path
root, corpus, annotators, faults = sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
sys.path.insert(0, root)
from tests.pipelines.stages import test_filter
from pipelines.store.faults import FAULT_VARIABLE
for home, fault in faults.items():
    child = os.fork()
    if not child:
        os.environ[FAULT_VARIABLE] = fault
        test_filter.run(Path(home), corpus, annotators, test_filter.SMALL)
        os._exit(0)
    print(fault, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_killed_anywhere_and_run_again_gives_the_same_bytes(small: str, annotators: Path, tmp_path: Path):
    home = tmp_path / "whole"
    receipt = run(home, small, annotators, SMALL)
    homes = {fault: tmp_path / fault.replace(":", "-") for fault in FAULTS}
    faults = json.dumps({str(path): fault for fault, path in homes.items()})
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", KILLED_RUNS, str(root), small, str(annotators), faults]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    assert ended.splitlines() == [f"{fault} {-signal.SIGKILL}" for fault in FAULTS]
    for path in homes.values():
        assert not (path / "filter" / receipt.fingerprint / "receipt.json").exists()
        again = run(path, small, annotators, SMALL)
        assert contents(path, again) == contents(home, receipt)
        assert not list(output(path, again).rglob("*.tmp-*"))


def good_rows(toy: ToyWeb, count: int) -> list[dict[str, Any]]:
    urls = {
        row["url"]
        for row in pq.read_table(toy.truth).to_pylist()
        if row["alt_kind"] == "good" and not row["junk"]
    }
    return [row for row in pq.read_table(toy.web).to_pylist() if row["url"] in urls][:count]


def test_of_copies_in_several_fragments_the_first_in_the_corpus_is_kept(
    toy: ToyWeb, annotators: Path, tmp_path: Path
):
    first, second, third = good_rows(toy, 3)
    mirror = {**first, "url": "https://mirror.example/1", "alt_text": "a picture that was seen before"}
    corpus = write_corpus(tmp_path / "web.parquet", [second, first, third, mirror, second, mirror])
    receipt = run(tmp_path, corpus, annotators, FilterConfig(rows_per_fragment=2))
    assert table(tmp_path, receipt, "filtered")["url"].to_pylist() == [
        second["url"],
        first["url"],
        third["url"],
    ]
    rejects = table(tmp_path, receipt, "rejects").to_pylist()
    key = record_key(first["image"], f"default:{first['url']}")
    assert [row["reason"] for row in rejects] == ["duplicate"] * 3
    assert [row["detail"] for row in rejects if row["url"] == mirror["url"]] == [f"of {key}"] * 2


def test_the_judge_has_a_threshold_and_a_share(done, toy: ToyWeb, annotators: Path, tmp_path: Path):
    home, receipt = done
    scores = dict(
        zip(
            *(table(home, receipt, "filtered")[name].to_pylist() for name in ("key", "judge_score")),
            strict=True,
        )
    )
    threshold = sorted(scores.values())[len(scores) // 3]
    config = CONFIG.model_copy(
        update={"judge_threshold": threshold, "duplicates": DuplicateRules(near=False)}
    )
    thresholded = run(tmp_path, f"parquet:{toy.web}", annotators, config)
    assert thresholded.reasons["judge_score"] >= len(scores) // 3
    assert min(table(tmp_path, thresholded, "filtered")["judge_score"].to_pylist()) >= threshold

    shared = run(
        tmp_path, f"parquet:{toy.web}", annotators, CONFIG.model_copy(update={"judge_keep_fraction": 0.3})
    )
    kept = table(tmp_path, shared, "filtered")["key"].to_pylist()
    best = sorted(scores, key=lambda key: (-scores[key], key))
    assert set(kept) == set(best[: len(kept)])
    assert len(kept) == -(-3 * len(scores) // 10)


def test_a_record_of_nulls_is_rejected_and_nothing_left_is_a_failure(annotators: Path, tmp_path: Path):
    rows = [
        {"image": None, "alt_text": None, "url": None},
        {"image": b"", "alt_text": "a red circle", "url": None},
    ]
    with pytest.raises(StageFailed, match="none of 2 records is left") as caught:
        run(tmp_path, write_corpus(tmp_path / "web.parquet", rows), annotators)
    assert "alt_missing 1" in str(caught.value)
    assert "image_missing 1" in str(caught.value)


def test_the_emoji_web(shared_data: Path, annotators: Path, tmp_path: Path):
    """A real crawl: junk, nulls, broken files and copies go, six languages stay."""
    rows = pq.read_table(shared_data / "emoji" / "web.parquet").to_pylist()[:800]
    corpus = write_corpus(
        tmp_path / "web.parquet", [{name: row[name] for name in CORPUS.names} for row in rows]
    )
    receipt = run(tmp_path, corpus, annotators, FilterConfig(rows_per_fragment=400))
    kept = table(tmp_path, receipt, "filtered").to_pylist()
    assert {"en", "de", "es", "ja", "ko", "ar"} <= {row["language"] for row in kept}
    junk = re.compile(r"image$|IMG_|emoji_u|https?:|www\.|<|128x128|OFF")
    assert not [
        row["alt_text"] for row in kept if junk.match(row["alt_text"]) or junk.search(row["alt_text"])
    ]
    glyphs = [re.sub(r"^.*/|\.\w+$", "", row["url"]) for row in kept]
    assert len(set(glyphs)) == len(glyphs)
    clean = [
        row
        for row in rows
        if row["alt_text"] and not junk.search(row["alt_text"]) and "broken" not in row["url"]
    ]
    assert len(kept) / len({re.sub(r"^.*/|\.\w+$", "", row["url"]) for row in clean}) >= 0.93


def test_what_an_evaluation_or_an_earlier_snapshot_has_is_kept_out(
    toy: ToyWeb, annotators: Path, tmp_path: Path
):
    earlier, shown, asked, new = good_rows(toy, 4)
    first = run(tmp_path, write_corpus(tmp_path / "first.parquet", [earlier]), annotators)
    evaluation = write_corpus(tmp_path / "evaluation.parquet", [shown])
    (tmp_path / "prompts.txt").write_text(f"  {asked['alt_text'].upper()} \n")
    config = CONFIG.model_copy(
        update={
            "evaluation_images": (evaluation,),
            "evaluation_prompts": (str(tmp_path / "prompts.txt"),),
        }
    )
    corpus = write_corpus(tmp_path / "second.parquet", [earlier, shown, asked, new])
    out = tmp_path / "filter" / first.fingerprint
    receipt = run_stage(
        STAGE,
        config,
        {
            "corpus": (Input("corpus", corpus, open_corpus(corpus).digest()),),
            "annotators": (Input("annotators", str(annotators), "a" * 64),),
            "earlier": (Input("filter", str(out), first.digest, first),),
        },
        home=tmp_path,
        snapshot="second",
        engine=OneByOne(),
        progress=Progress(quiet=True),
    )
    assert table(tmp_path, receipt, "filtered")["url"].to_pylist() == [new["url"]]
    assert receipt.reasons == {"contaminated": 2, "duplicate": 1}
