"""The full check names the wrong file, also where size, time and inode are as they were."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dags.cli.verify import verify_outputs
from pipelines.errors import ConfigError
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.stage import Stage, StageConfig, Work, run_stage
from pipelines.store.outputs import load_receipt
from pipelines.store.receipts import PartReceipt
from pipelines.verify import Target, targets, verify


class ToyConfig(StageConfig):
    number: int = 1


def write(work: Work) -> Iterator[PartReceipt]:
    for name in ("a", "b"):
        text = f"{name}{work.config.number}"
        yield work.parts.write(name, {f"data/{name}.txt": lambda path, text=text: path.write_text(text)})


@pytest.fixture
def home(tmp_path) -> Path:
    """Two outputs of stage `one` and one of stage `two`."""
    for stage, number in (("one", 1), ("one", 2), ("two", 1)):
        make(tmp_path, stage, number)
    return tmp_path


def make(home: Path, stage: str, number: int) -> Path:
    engine, progress = Engine(), Progress(quiet=True)
    made = Stage(stage, 1, ToyConfig, (), write)
    config = ToyConfig(number=number)
    receipt = run_stage(made, config, {}, home=home, snapshot="", engine=engine, progress=progress)
    return home / stage / receipt.fingerprint


def edit_unseen(path: Path) -> None:
    """Change a byte and keep size, modification time and inode."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def lines(home: Path, target: str | None = None) -> tuple[bool, list[str]]:
    printed: list[str] = []
    return verify_outputs(home, target, printed.append), printed


def test_an_edit_that_no_look_shows_is_found_by_the_full_hash_and_then_made_again(home):
    out = make(home, "two", 1)
    wrong = out / "data" / "b.txt"
    edit_unseen(wrong)
    assert load_receipt(out) is not None  # by size, time and inode it is what it was

    well, printed = lines(home)
    assert not well
    assert f"  {wrong}: its content does not have the hash in its receipt" in printed
    assert sum(": ok (2 files" in line for line in printed) == 2
    assert f"two/{out.name}: WRONG (2 files, 0.0 MB)" in printed
    assert printed[-1].startswith("1 of 3 outputs are not as they were made; `straightshot run")

    assert load_receipt(out) is None  # from now on every look knows
    assert make(home, "two", 1) == out and wrong.read_text() == "b1"
    assert lines(home) == (True, [line for line in lines(home)[1] if ": ok (" in line])


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda path: path.unlink(), "it is missing"),
        (lambda path: path.write_text("a"), "it has 1 bytes, and its receipt lists 2"),
    ],
)
def test_a_missing_and_a_cut_file_are_named(home, damage, what):
    out = make(home, "one", 2)
    damage(out / "data" / "a.txt")
    (fault,) = verify(Target(out, out)).faults
    assert (fault.path, fault.what) == (out / "data" / "a.txt", what)


def test_a_receipt_that_does_not_count_is_named(home):
    receipt = make(home, "one", 2) / "receipt.json"
    receipt.write_text(receipt.read_text().replace('"version": 1', '"version": 2'))
    well, printed = lines(home, "one")
    assert not well
    assert f"  {receipt}: it was edited: its content does not have the hash that it states" in printed


def test_a_target_is_a_stage_an_output_or_a_file(home):
    out = make(home, "one", 1)
    assert len(targets(home)) == 3
    assert {target.out.parent.name for target in targets(home, "one")} == {"one"}
    assert len(targets(home, "one")) == 2 == len(targets(home, str(home / "one")))
    assert targets(home, str(out)) == [Target(out, out)] == targets(home, str(out / "receipt.json"))
    edit_unseen(out / "data" / "a.txt")
    for path, files, faults in (("data", 2, 1), ("data/a.txt", 1, 1), ("data/b.txt", 1, 0)):
        (target,) = targets(home, str(out / path))
        verification = verify(target)
        assert (verification.files, len(verification.faults)) == (files, faults)
    (out / "data" / "stray").write_text("")
    (target,) = targets(home, str(out / "data" / "stray"))
    assert [fault.what for fault in verify(target).faults] == ["no receipt lists it"]


def test_a_relative_path_counts_from_here(home, monkeypatch):
    out = make(home, "one", 1)
    monkeypatch.chdir(home / "one")
    assert targets(home, out.name) == [Target(out, out)]


@pytest.mark.parametrize("target", ["three", "/nowhere/at/all", "on"])
def test_a_target_that_is_not_there_is_one_line(home, target):
    with pytest.raises(ConfigError, match="neither a stage with outputs") as error:
        targets(home, target)
    assert len(str(error.value).splitlines()) == 1


def test_an_empty_home_says_what_makes_outputs(tmp_path):
    with pytest.raises(ConfigError, match="there is no output under"):
        targets(tmp_path)
