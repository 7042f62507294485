"""The filter stage: junk goes and says why, the rest stays."""

import hashlib
import io
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.corpus.readers import open_corpus, read_fragment
from components.corpus.schemas import CORPUS, FILTERED, REJECT_EXAMPLES, REJECTS, Reason, record_key
from components.corpus.small_images import MOST_BYTES, SIDE
from components.filtering.duplicates import DuplicateRules
from components.toyworld.web import ToyWeb
from pipelines.errors import StageFailed
from pipelines.execution.progress import Progress
from pipelines.stage import Input, run_stage
from pipelines.stages.data.part_records import EXAMPLES_FOLDER
from pipelines.stages.data.reject_examples import (
    LEAST_IN_PART,
    MOST_PARTS,
    SHOWN,
    Candidates,
    examples_in_part,
)
from pipelines.stages.filter import STAGE, FilterConfig
from tests.pipelines.one_by_one import OneByOne
from tests.pipelines.stages.crashing_record import draw_or_crash
from tests.pipelines.stages.filter.small_filter import (
    CONFIG,
    ROWS,
    good_rows,
    output,
    run,
    table,
    write_corpus,
)


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


def test_a_row_group_that_keeps_one_worker_busy_alone_is_named(toy: ToyWeb, annotators: Path, tmp_path: Path):
    rows = pq.read_table(toy.web).to_pylist()[:40]
    log = io.StringIO()
    for name, row_group_size in (("large", 40), ("small", 4)):
        corpus = write_corpus(tmp_path / f"{name}.parquet", rows, row_group_size)
        run(tmp_path / name, corpus, annotators, FilterConfig(rows_per_fragment=2), log=log)
    (warning,) = [line for line in log.getvalue().splitlines() if "one worker alone" in line]
    assert "large.parquet" in warning and "40 records" in warning


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
