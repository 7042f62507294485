"""Parts and receipts: what is named in a receipt is whole, and what is not whole is named in none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.store.commit import commit
from pipelines.store.locks import Owner
from pipelines.store.parts import Parts
from pipelines.store.receipts import (
    Counts,
    FileEntry,
    PartReceipt,
    Receipt,
    ReceiptError,
    content_digest,
    files_verify,
    json_digest,
    parse_receipt,
    wrong_with,
)

KILLED = -9


def parts(root: Path) -> Parts:
    return Parts(root, "toy", "run1")


def write_text(text: str):
    return lambda path: path.write_text(text)


def test_a_finished_part_is_found_again_and_a_changed_one_is_not(tmp_path):
    counts = Counts.model_validate({"in": 3, "kept": 2, "rejected": 1})
    files = {"data/p.txt": write_text("rows"), "rejects/p.txt": write_text("row")}
    made = parts(tmp_path).write("p", files, counts=counts, reasons={"alt_url": 1})
    assert parts(tmp_path).finished("p") == made
    assert parts(tmp_path).finished("q") is None

    (tmp_path / "data" / "p.txt").write_text("rowz")  # as long as before
    assert parts(tmp_path).finished("p") is None


def written(tmp_path: Path) -> dict:
    """The fields of a part's receipt as they lie on the disk."""
    counts = Counts.model_validate({"in": 2, "kept": 2})
    parts(tmp_path).write("p", {"p.txt": write_text("rows")}, counts=counts, info={"seconds": 0.1 + 0.2})
    return json.loads((tmp_path / "parts" / "p.json").read_text())


def test_a_receipt_carries_the_hash_of_everything_else_in_it(tmp_path):
    fields = written(tmp_path)
    stated = fields.pop("sha256")
    assert stated == json_digest(fields)
    assert (
        json_digest({"b": 1, "a": "é"}) == "aa58fba8483623bed37c1b02edfccbdd9a53123837c20bfa4cb4049993a2872e"
    )


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda fields: fields["counts"].update(kept=1, rejected=1), "it was edited"),
        (lambda fields: fields["files"][0].update(bytes=5), "it was edited"),
        (lambda fields: fields.update(extra=1), "it was edited"),
        (lambda fields: fields.pop("sha256"), "of an older version: it has no hash of its own"),
    ],
)
def test_an_edited_count_and_an_older_receipt_are_found(tmp_path, edit, why):
    fields = written(tmp_path)
    edit(fields)
    content = json.dumps(fields).encode()
    with pytest.raises(ReceiptError, match=why):
        parse_receipt(content, PartReceipt)
    (tmp_path / "parts" / "p.json").write_bytes(content)
    assert parts(tmp_path).finished("p") is None


def test_a_receipt_with_a_newer_versions_fields_and_their_hash_is_read_or_named(tmp_path):
    fields = written(tmp_path)
    del fields["sha256"]
    newer = {**fields, "speed": 3}
    assert (
        parse_receipt(json.dumps({**newer, "sha256": json_digest(newer)}).encode(), PartReceipt).name == "p"
    )
    del newer["name"]
    with pytest.raises(ReceiptError, match="another version"):
        parse_receipt(json.dumps({**newer, "sha256": json_digest(newer)}).encode(), PartReceipt)


@pytest.mark.parametrize("layout", [{"indent": 4}, {"sort_keys": True}, {"ensure_ascii": True}])
def test_a_receipt_that_was_only_laid_out_differently_still_counts(tmp_path, layout):
    fields = written(tmp_path)
    assert parse_receipt(json.dumps(fields, **layout).encode(), PartReceipt).counts.kept == 2


@pytest.mark.parametrize("damage", ["", "{", '{"name": "p"}', "\x00" * 40, "[]", "7"])
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
        "from pathlib import Path; from pipelines.store.parts import Parts;"
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


def test_what_is_wrong_with_a_file_is_named(tmp_path):
    (tmp_path / "x").write_text("rows")
    (entry,) = parts(tmp_path).write("p", {"y": write_text("rows")}).files
    assert wrong_with(tmp_path / "y", entry) == "" and files_verify(tmp_path, [entry])
    assert wrong_with(tmp_path / "gone", entry) == "it is missing"
    (tmp_path / "y").write_text("rowz")
    assert "does not have the hash" in wrong_with(tmp_path / "y", entry)
    (tmp_path / "y").write_text("ro")
    assert wrong_with(tmp_path / "y", entry) == "it has 2 bytes, and its receipt lists 4"
    assert not files_verify(tmp_path, [entry])


def test_counts_keep_the_names_of_the_status_json():
    counts = Counts.model_validate({"in": 5, "kept": 3, "rejected": 1, "errored": 1})
    assert (counts + counts).as_dict() == {"in": 10, "kept": 6, "rejected": 2, "errored": 2}
    assert Receipt.model_fields["counts"].annotation is Counts


def listing(part: PartReceipt) -> Receipt:
    """A stage's receipt that lists the files of a part, and nothing more than it must."""
    known = {"files": part.files, "version": 1, "counts": Counts(), "seconds": 0.0, "peak_rss_mb": 0.0}
    tables = {key: {} for key in ("config", "inputs", "input_fingerprints", "libraries", "reasons", "info")}
    texts = dict.fromkeys(("stage", "snapshot", "fingerprint", "digest", "finished_at"), "x")
    return Receipt.model_validate({**known, **tables, **texts})


def test_the_disk_holds_every_name_that_a_receipt_lists_before_the_receipt(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr("components.durable.flush", lambda path: flushed.append(path.name))
    monkeypatch.setattr("pipelines.store.commit.flush", lambda path: flushed.append(path.name))
    part = Parts(tmp_path, "filter", "run").write("p", {"kept/p": lambda path: path.write_text("x")})
    Parts(tmp_path, "filter", "run", "scratch").write("q", {"q": lambda path: path.write_text("x")})
    assert [name.partition(".tmp-")[0] for name in flushed] == ["p", "p.json"]
    flushed.clear()
    commit(tmp_path, listing(part), None, Owner.me("run"), lambda: flushed.append("receipt"))
    assert flushed[0] == "kept" and flushed[-2:] == ["receipt", tmp_path.name]
