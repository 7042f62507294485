"""Killed at any of its fault points, a stage run again gives the same bytes, and a forced one loses none."""

from dataclasses import replace

import pytest

from pipelines.store.outputs import load_receipt
from tests.pipelines.small_stage import TOY, folders, kill_at, output, run, write_words

POINTS = (
    "toy.part.before_rename:2",
    "toy.part.before_receipt:1",
    "toy.part_receipt.before_rename:3",
    "toy.folder.before_rename",
    "toy.receipt.before_rename",
)
SWAP_POINTS = ("toy.swap.before_exchange", "toy.swap.before_removal")
RENAME_POINT = "toy.swap.between_renames"  # passed where the file system cannot exchange two names


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_the_same_command_gives_the_same_bytes(tmp_path, point):
    kill_at(point, tmp_path / "killed")
    receipt, whole = run(tmp_path / "killed"), run(tmp_path / "whole")
    assert receipt.digest == whole.digest
    assert receipt.counts == whole.counts
    names = [sorted(p.name for p in output(tmp_path / d, whole).rglob("*")) for d in ("killed", "whole")]
    assert names[0] == names[1]  # nothing half-written is left


@pytest.mark.parametrize(
    ("point", "exchange"),
    [*((point, True) for point in (*POINTS, *SWAP_POINTS)), ("toy.swap.before_removal", False)],
)
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
