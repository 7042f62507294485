"""Parts and receipts: what is named in a receipt is whole, and what is not whole is named in none."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.store.receipts import (
    Counts,
    FileEntry,
    Parts,
    Receipt,
    commit_file,
    content_digest,
    files_verify,
)

KILLED = -9


def parts(root: Path) -> Parts:
    return Parts(root, "toy", "run1")


def write_text(text: str):
    return lambda path: path.write_text(text)


def test_a_committed_file_has_the_bytes_and_hash_that_are_returned(tmp_path):
    size, sha256 = commit_file(tmp_path / "a" / "b.txt", write_text("hello"), run_id="r", point="toy.part")
    assert (tmp_path / "a" / "b.txt").read_text() == "hello"
    assert (size, sha256) == (5, hashlib.sha256(b"hello").hexdigest())
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_writer_that_raises_leaves_the_old_file_as_it_was(tmp_path):
    def breaks(path: Path):
        path.write_text("half")
        raise OSError("disk full")

    commit_file(tmp_path / "x", write_text("old"), run_id="r", point="toy.part")
    with pytest.raises(OSError, match="disk full"):
        commit_file(tmp_path / "x", breaks, run_id="r", point="toy.part")
    assert (tmp_path / "x").read_text() == "old"


def test_a_finished_part_is_found_again_and_a_changed_one_is_not(tmp_path):
    counts = Counts.model_validate({"in": 3, "kept": 2, "rejected": 1})
    files = {"data/p.txt": write_text("rows"), "rejects/p.txt": write_text("row")}
    made = parts(tmp_path).write("p", files, counts=counts, reasons={"alt_url": 1})
    assert parts(tmp_path).finished("p") == made
    assert parts(tmp_path).finished("q") is None

    (tmp_path / "data" / "p.txt").write_text("rowz")  # as long as before
    assert parts(tmp_path).finished("p") is None


@pytest.mark.parametrize("damage", ["", "{", '{"name": "p"}', "\x00" * 40])
def test_a_torn_part_receipt_is_as_if_it_were_not_there(tmp_path, damage):
    parts(tmp_path).write("p", {"p.txt": write_text("rows")})
    (tmp_path / "parts" / "p.json").write_text(damage)
    assert parts(tmp_path).finished("p") is None


def test_a_part_whose_records_do_not_add_up_is_refused(tmp_path):
    counts = Counts.model_validate({"in": 3, "kept": 1, "rejected": 1})
    with pytest.raises(AssertionError, match="3 records in, 2 accounted for"):
        parts(tmp_path).write("p", {"p.txt": write_text("rows")}, counts=counts)
    assert parts(tmp_path).finished("p") is None


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize(
    "point", ["toy.part.before_rename", "toy.part.before_receipt", "toy.part_receipt.before_rename"]
)
def test_a_part_killed_at_any_point_is_unfinished_and_finishes_to_the_same_bytes(tmp_path, point, k):
    program = (
        "from pathlib import Path; from pipelines.store.receipts import Parts;"
        f"parts = Parts(Path({str(tmp_path / 'killed')!r}), 'toy', 'r');"
        "write = lambda path: path.write_text('rows');"
        "[parts.write(name, {name + '.txt': write}) for name in ('p', 'q') if not parts.finished(name)]"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "STRAIGHTSHOT_FAULT": f"{point}:{k}"},
        check=False,
    )
    assert killed.returncode == KILLED
    names = ("p", "q")
    finished = [parts(tmp_path / "killed").finished(name) is not None for name in names]
    assert finished == [k == 2, False]

    subprocess.run([sys.executable, "-c", program], check=True)
    for name in names:
        parts(tmp_path / "whole").write(name, {f"{name}.txt": write_text("rows")})
        killed_part = parts(tmp_path / "killed").finished(name)
        assert killed_part == parts(tmp_path / "whole").finished(name)


def test_the_digest_depends_on_names_and_content_and_not_on_order():
    a, b = FileEntry(path="a", bytes=1, sha256="1"), FileEntry(path="b", bytes=1, sha256="2")
    swapped = (FileEntry(path="a", bytes=1, sha256="2"), FileEntry(path="b", bytes=1, sha256="1"))
    assert content_digest([a, b]) == content_digest([b, a])
    assert len({content_digest([a, b]), content_digest(swapped), content_digest([a])}) == 3


def test_a_missing_file_does_not_verify(tmp_path):
    assert not files_verify(tmp_path, [FileEntry(path="gone", bytes=0, sha256="")])


def test_counts_keep_the_names_of_the_status_json():
    counts = Counts.model_validate({"in": 5, "kept": 3, "rejected": 1, "errored": 1})
    assert (counts + counts).as_dict() == {"in": 10, "kept": 6, "rejected": 2, "errored": 2}
    assert Receipt.model_fields["counts"].annotation is Counts
