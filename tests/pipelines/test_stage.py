"""The stage contract on a small stage: same fingerprint, nothing to do; what is damaged is made again."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pipelines.stage import Input, Work, fingerprint
from pipelines.store import receipts
from pipelines.store.outputs import load_receipt
from pipelines.store.receipts import PartReceipt, sha256_file
from tests.pipelines.small_stage import CORPUS, TOY, ToyConfig, output, run, write_words


def test_a_receipt_says_what_went_in_and_what_came_out(tmp_path):
    receipt = run(tmp_path)
    assert receipt.counts.as_dict() == {"in": 3, "kept": 1, "rejected": 2, "errored": 0}
    assert receipt.reasons == {"alt_spam": 2}
    assert receipt.config == {"words": ["one", "two", "three"], "upper": False}
    assert receipt.inputs == {"corpus": ["digest-of-corpus"]}
    assert {entry.path for entry in receipt.files} == {
        "words/one.txt", "words/two.txt", "words/three.txt", "model/weights",
    }  # fmt: skip
    assert receipt.peak_rss_mb > 1
    assert load_receipt(output(tmp_path, receipt)) == receipt
    assert not list(output(tmp_path, receipt).glob("*.tmp-*"))
    assert not (output(tmp_path, receipt) / "scratch").exists()


def test_the_same_fingerprint_does_nothing(tmp_path):
    calls = []
    stage = replace(TOY, run=lambda work: calls.append(1) or write_words(work))
    assert run(tmp_path, stage) == run(tmp_path, stage)
    assert calls == [1]


def test_everything_that_the_output_depends_on_is_in_the_fingerprint():
    def name(stage=TOY, snapshot="s", config=None, inputs=CORPUS):
        return fingerprint(stage, snapshot, config or ToyConfig(), inputs)

    other = {"corpus": (Input("corpus", "somewhere", "other digest"),)}
    moved = {"corpus": (Input("corpus", "elsewhere", "digest-of-corpus"),)}
    different = {
        name(),
        name(stage=replace(TOY, version=2)),
        name(stage=replace(TOY, name="toy2")),
        name(snapshot="t"),
        name(config=ToyConfig(upper=True)),
        name(inputs=other),
    }
    assert len(different) == 6
    assert name(inputs=moved) == name()  # where it lies does not matter, what it holds does
    assert name() == "64267d47df47b712"  # and it is the same on every machine and in every run


def test_a_stage_that_breaks_says_why_and_goes_on_where_it_was(tmp_path):
    def breaks(work: Work) -> Iterator[PartReceipt]:
        parts = write_words(work)
        yield next(parts)
        raise ValueError("no more words")

    with pytest.raises(ValueError, match="no more words"):
        run(tmp_path, replace(TOY, run=breaks))
    (out,) = (path for path in (tmp_path / "toy").iterdir() if path.is_dir())
    assert json.loads((out / "failed.json").read_text())["error"] == "ValueError: no more words"
    assert load_receipt(out) is None
    before = (out / "words" / "one.txt").stat()

    receipt = run(tmp_path)
    assert not (out / "failed.json").exists()
    assert (out / "words" / "one.txt").stat().st_ino == before.st_ino  # kept, not made again
    assert receipt.digest == run(tmp_path / "whole").digest


def test_a_damaged_output_is_made_again_to_the_same_digest(tmp_path):
    receipt = run(tmp_path)
    damaged = output(tmp_path, receipt) / "words" / "two.txt"
    for damage in (lambda: damaged.write_text("tw0"), damaged.unlink):
        damage()
        assert load_receipt(output(tmp_path, receipt)) is None
        assert run(tmp_path).digest == receipt.digest
        assert damaged.read_text() == "two"


def test_a_damaged_model_is_made_again_although_its_folder_stands(tmp_path):
    def once(work: Work) -> Iterator[PartReceipt]:
        """Like the annotators: a folder that stands is taken for whole."""
        if not (work.out / "model").exists():
            with work.folder("model") as folder:
                (folder / "weights").write_text("w")
                (folder / "config").write_text("c")
        yield work.adopt("model")

    stage = replace(TOY, run=once)
    receipt = run(tmp_path, stage)
    weights = output(tmp_path, receipt) / "model" / "weights"
    for damage in (lambda: weights.write_text("x"), weights.unlink):
        damage()
        assert run(tmp_path, stage).digest == receipt.digest
        assert weights.read_text() == "w"


@pytest.mark.parametrize("damage", ["", "{", "{}"])
def test_a_torn_receipt_means_that_the_stage_is_not_done(tmp_path, damage):
    receipt = run(tmp_path)
    (output(tmp_path, receipt) / "receipt.json").write_text(damage)
    assert load_receipt(output(tmp_path, receipt)) is None
    assert run(tmp_path).digest == receipt.digest


def test_a_receipt_of_another_fingerprint_is_not_this_outputs(tmp_path):
    receipt = run(tmp_path)
    output(tmp_path, receipt).rename(tmp_path / "toy" / "0000000000000000")
    assert load_receipt(tmp_path / "toy" / "0000000000000000") is None


def test_a_finished_output_is_hashed_once_and_not_at_every_look(tmp_path, monkeypatch):
    receipt = run(tmp_path)
    hashed = []
    monkeypatch.setattr(receipts, "sha256_file", lambda path: hashed.append(path.name) or sha256_file(path))
    assert load_receipt(output(tmp_path, receipt)) == receipt == run(tmp_path)
    assert hashed == []  # what was written was hashed as it was written
    (tmp_path / "cache" / "verified.json").unlink()
    for _ in range(2):
        assert load_receipt(output(tmp_path, receipt)) == receipt
    assert sorted(hashed) == ["one.txt", "three.txt", "two.txt", "weights"]


def test_what_a_killed_worker_of_the_same_run_left_half_written_is_swept(tmp_path):
    def loses_a_worker(work: Work) -> Iterator[PartReceipt]:
        yield from write_words(work)
        (work.out / "words" / "two.txt.tmp-0123").write_text("tw")
        (work.out / "parts" / "two.json.tmp-0123").write_text("{")

    out = output(tmp_path, run(tmp_path, replace(TOY, run=loses_a_worker)))
    assert [path.name for path in out.rglob("*.tmp-*")] == []


def test_an_edited_count_is_found_and_the_output_made_again(tmp_path):
    receipt = run(tmp_path)
    path = output(tmp_path, receipt) / "receipt.json"
    path.write_text(path.read_text().replace('"kept": 1', '"kept": 2'))
    assert load_receipt(output(tmp_path, receipt)) is None
    assert run(tmp_path).counts == receipt.counts


def test_under_a_receipt_that_does_not_count_no_model_is_trusted(tmp_path):
    def once(work: Work) -> Iterator[PartReceipt]:
        if not (work.out / "model").exists():
            with work.folder("model") as folder:
                (folder / "weights").write_text("w")
        yield work.adopt("model")

    stage = replace(TOY, run=once)
    receipt = run(tmp_path, stage)
    (output(tmp_path, receipt) / "receipt.json").write_text("{}")
    (output(tmp_path, receipt) / "model" / "weights").write_text("x")
    assert run(tmp_path, stage).digest == receipt.digest
