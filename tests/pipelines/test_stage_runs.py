"""Two runs at once, of one stage or of a stage and its input, and a forced one beside the old output."""

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pipelines.errors import StageBusy
from pipelines.stage import Stage, Work
from pipelines.store.outputs import load_receipt
from pipelines.store.receipts import PartReceipt
from tests.pipelines.small_stage import TOY, ToyConfig, folders, input_of, output, run, write_words


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
