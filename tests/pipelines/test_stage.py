"""The stage contract on a small stage: same fingerprint, nothing to do; killed anywhere, same bytes."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.errors import StageBusy
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.stage import Input, Stage, StageConfig, Work, fingerprint, run_stage
from pipelines.store import receipts
from pipelines.store.outputs import load_receipt
from pipelines.store.receipts import Counts, PartReceipt, sha256_file

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


def folders(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "toy").iterdir() if path.is_dir())


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


def test_force_makes_it_again_and_leaves_one_output(tmp_path):
    first, again = run(tmp_path), run(tmp_path, force=True)
    assert again.digest == first.digest
    assert again.finished_at > first.finished_at
    assert load_receipt(output(tmp_path, first)) == again
    assert folders(tmp_path) == [first.fingerprint]


def test_a_forced_run_that_fails_loses_nothing(tmp_path):
    def breaks(work: Work) -> Iterator[PartReceipt]:
        yield next(write_words(work))
        raise ValueError("no more words")

    first = run(tmp_path)
    with pytest.raises(ValueError, match="no more words"):
        run(tmp_path, replace(TOY, run=breaks), force=True)
    assert load_receipt(output(tmp_path, first)) == first
    assert run(tmp_path) == first  # it is as fresh as before
    again = run(tmp_path, force=True)  # and the forced run goes on with the part that it had finished
    assert again.digest == first.digest and load_receipt(output(tmp_path, first)) == again


def test_the_old_output_is_there_while_a_forced_run_makes_the_new_one(tmp_path):
    seen = []

    def looks(work: Work) -> Iterator[PartReceipt]:
        yield from write_words(work)
        out = work.home / work.stage / work.fingerprint
        seen.append((load_receipt(out), (out / "words" / "two.txt").read_text(), work.out == out))

    first = run(tmp_path)
    run(tmp_path, replace(TOY, run=looks), force=True)
    assert seen == [(first, "two", False)]


def test_a_forced_output_of_other_bytes_takes_the_old_ones_place(tmp_path):
    def writes_more(work: Work) -> Iterator[PartReceipt]:
        yield from write_words(work)
        yield work.parts.write("more", {"more.txt": lambda path: path.write_text("more")})

    first = run(tmp_path)
    again = run(tmp_path, replace(TOY, run=writes_more), force=True)
    assert again.digest != first.digest
    assert (output(tmp_path, first) / "more.txt").read_text() == "more"
    assert run(tmp_path) == again


def input_of(home: Path, receipt) -> dict[str, tuple[Input, ...]]:
    return {"corpus": (Input("toy", str(output(home, receipt)), receipt.digest, receipt),)}


def test_forcing_an_input_waits_until_the_running_stage_has_read_it(tmp_path):
    """The forced run of the input is ready before the running stage has read the last file of it."""
    first = run(tmp_path)
    inside, order = threading.Event(), []

    def read_slowly(work: Work) -> Iterator[PartReceipt]:
        files = work.input("corpus").files("words/")
        inside.set()
        for path in files:
            order.append(("read", path.name, path.read_text()))
            time.sleep(0.3)
        yield work.parts.write("all", {"all.txt": lambda path: path.write_text("done")})

    def force() -> None:
        run(tmp_path, replace(TOY, run=shout), force=True)
        order.append(("replaced", "", ""))

    def shout(work: Work) -> Iterator[PartReceipt]:
        for word in work.config.words:
            content = {f"words/{word}.txt": lambda path, word=word: path.write_text(word.upper())}
            yield work.parts.write(word, content)

    reader = Stage("reader", 1, ToyConfig, ("corpus",), read_slowly)
    forced = threading.Thread(target=force)
    inputs = input_of(tmp_path, first)
    running = threading.Thread(target=run, args=(tmp_path, reader), kwargs={"inputs": inputs})
    running.start()
    inside.wait(10)
    forced.start()
    running.join()
    forced.join()
    assert order == [
        ("read", "one.txt", "one"),
        ("read", "three.txt", "three"),
        ("read", "two.txt", "two"),
        ("replaced", "", ""),
    ]
    assert (output(tmp_path, first) / "words" / "two.txt").read_text() == "TWO"


def test_an_input_that_was_replaced_since_the_plan_is_one_line(tmp_path):
    first = run(tmp_path)
    inputs = input_of(tmp_path, replace_digest(first))
    with pytest.raises(StageBusy, match=r"^reader .*: its input .* was replaced by another run; run again$"):
        run(tmp_path, replace(TOY, name="reader"), inputs=inputs)


def replace_digest(receipt):
    return receipt.model_copy(update={"digest": "of what was planned"})


def test_a_run_that_was_taken_over_writes_no_receipt(tmp_path):
    def is_taken_over(work: Work) -> Iterator[PartReceipt]:
        yield from write_words(work)
        lock = work.out.with_name(f"{work.out.name}.lock")
        lock.write_text(json.dumps({**json.loads(lock.read_text()), "run_id": "successor"}))

    with pytest.raises(StageBusy, match="taken over"):
        run(tmp_path, replace(TOY, run=is_taken_over))
    (out,) = (path for path in (tmp_path / "toy").iterdir() if path.is_dir())
    assert not (out / "receipt.json").exists()


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
SWAP_POINTS = ("toy.swap.before_exchange", "toy.swap.before_removal")
RENAME_POINT = "toy.swap.between_renames"  # passed where the file system cannot exchange two names


def kill_at(point: str, home: Path, *, force: bool = False, exchange: bool = True) -> None:
    """Run the stage in another process, which is killed at the point."""
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_stage as t;"
    program += "" if exchange else "import pipelines.store.outputs as o; o.exchange = lambda a, b: False;"
    program += f"from pathlib import Path; t.run(Path({str(home)!r}), force={force})"
    environment = {**os.environ, "STRAIGHTSHOT_FAULT": point}
    killed = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert killed.returncode == KILLED


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_the_same_command_gives_the_same_bytes(tmp_path, point):
    kill_at(point, tmp_path / "killed")
    receipt, whole = run(tmp_path / "killed"), run(tmp_path / "whole")
    assert receipt.digest == whole.digest
    assert receipt.counts == whole.counts
    names = [sorted(p.name for p in output(tmp_path / d, whole).rglob("*")) for d in ("killed", "whole")]
    assert names[0] == names[1]  # nothing half-written is left


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
@pytest.mark.parametrize("point", [*POINTS, *SWAP_POINTS])
def test_a_forced_run_killed_at_any_point_leaves_one_output_whole(tmp_path, point, exchange):
    first = run(tmp_path)
    kill_at(point, tmp_path, force=True, exchange=exchange)
    receipt = load_receipt(output(tmp_path, first))
    assert receipt is not None and receipt.digest == first.digest
    assert (receipt == first) == (point != "toy.swap.before_removal")

    again = run(tmp_path, force=True)
    assert load_receipt(output(tmp_path, first)) == again != first
    assert folders(tmp_path) == [first.fingerprint]  # neither the old nor the forced one is left beside


def test_killed_between_two_renames_the_next_run_puts_the_new_output_in_place(
    tmp_path,
):
    first = run(tmp_path)
    kill_at(RENAME_POINT, tmp_path, force=True, exchange=False)
    assert load_receipt(output(tmp_path, first)) is None
    receipt = run(tmp_path)
    assert receipt.digest == first.digest and receipt.finished_at > first.finished_at
    assert folders(tmp_path) == [first.fingerprint]


def test_a_forced_run_that_was_killed_before_the_swap_is_not_made_again(tmp_path):
    run(tmp_path)
    kill_at("toy.swap.before_exchange", tmp_path, force=True)
    calls = []
    stage = replace(TOY, run=lambda work: calls.append(1) or write_words(work))
    run(tmp_path, stage, force=True)
    assert calls == []
