"""The stage contract on a small stage: same fingerprint, nothing to do; killed anywhere, same bytes."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.errors import StageBusy
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.stage import Input, Stage, StageConfig, Work, fingerprint, load_receipt, run_stage
from pipelines.store.receipts import Counts, PartReceipt

KILLED = -9


class ToyConfig(StageConfig):
    words: tuple[str, ...] = ("one", "two", "three")
    upper: bool = False


def write_words(work: Work) -> Iterator[PartReceipt]:
    """One part per word; words with an 'o' are rejected."""
    for word in work.config.words:
        if (finished := work.parts.finished(word)) is not None:
            yield finished
            continue
        kept = "o" not in word
        text = word.upper() if work.config.upper else word
        yield work.parts.write(
            word,
            {f"words/{word}.txt": lambda path, text=text: path.write_text(text)},
            counts=Counts.model_validate({"in": 1, "kept": int(kept), "rejected": int(not kept)}),
            reasons={} if kept else {"alt_spam": 1},
        )
    work.scratch.mkdir(exist_ok=True)
    with work.folder("model") as folder:
        (folder / "weights").write_text("w")
    yield work.adopt("model")


TOY = Stage("toy", 1, ToyConfig, ("corpus",), write_words)
CORPUS = {"corpus": (Input("corpus", "somewhere", "digest-of-corpus"),)}


def run(home: Path, stage: Stage = TOY, config: ToyConfig | None = None, **options):
    return run_stage(
        stage,
        config or ToyConfig(),
        options.pop("inputs", CORPUS),
        home=home,
        snapshot="s",
        engine=Engine(),
        progress=Progress(quiet=True),
        **options,
    )


def output(home: Path, receipt) -> Path:
    return home / "toy" / receipt.fingerprint


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
    def mark(stage=TOY, snapshot="s", config=None, inputs=CORPUS):
        return fingerprint(stage, snapshot, config or ToyConfig(), inputs)

    other = {"corpus": (Input("corpus", "somewhere", "other digest"),)}
    moved = {"corpus": (Input("corpus", "elsewhere", "digest-of-corpus"),)}
    different = {
        mark(),
        mark(stage=replace(TOY, version=2)),
        mark(stage=replace(TOY, name="toy2")),
        mark(snapshot="t"),
        mark(config=ToyConfig(upper=True)),
        mark(inputs=other),
    }
    assert len(different) == 6
    assert mark(inputs=moved) == mark()  # where it lies does not matter, what it holds does
    assert mark() == "64267d47df47b712"  # and it is the same on every machine and in every run


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


def test_force_makes_it_again(tmp_path):
    first, again = run(tmp_path), run(tmp_path, force=True)
    assert again.digest == first.digest
    assert again != first or again.seconds != first.seconds


def test_two_runs_of_the_same_thing_do_not_meet(tmp_path):
    inside, leave = threading.Event(), threading.Event()

    def waits(work: Work) -> Iterator[PartReceipt]:
        inside.set()
        leave.wait(10)
        return write_words(work)

    first = threading.Thread(target=run, args=(tmp_path, replace(TOY, run=waits)))
    first.start()
    inside.wait(10)
    with pytest.raises(StageBusy, match=f"process {os.getpid()}"):
        run(tmp_path)
    leave.set()
    first.join()
    assert run(tmp_path).counts.in_ == 3


POINTS = (
    "toy.part.before_rename:2",
    "toy.part.before_receipt:1",
    "toy.part_receipt.before_rename:3",
    "toy.folder.before_rename",
    "toy.receipt.before_rename",
)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_the_same_command_gives_the_same_bytes(tmp_path, point):
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_stage as t;"
    program += f"from pathlib import Path; t.run(Path({str(tmp_path / 'killed')!r}))"
    environment = {**os.environ, "STRAIGHTSHOT_FAULT": point}
    killed = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert killed.returncode == KILLED
    receipt, whole = run(tmp_path / "killed"), run(tmp_path / "whole")
    assert receipt.digest == whole.digest
    assert receipt.counts == whole.counts
    names = [sorted(p.name for p in output(tmp_path / d, whole).rglob("*")) for d in ("killed", "whole")]
    assert names[0] == names[1]  # nothing half-written is left
