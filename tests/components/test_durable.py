"""What is written is whole or not there: files, folders, and the exchange of two names."""

import hashlib
import os
from pathlib import Path

import pytest

from components import durable
from components.durable import exchange, remove, sweep, write_bytes, write_file, write_folder, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_has_the_bytes_and_hash_that_are_returned(tmp_path):
    written = write_text(tmp_path / "a" / "b.txt", "hello")
    assert (tmp_path / "a" / "b.txt").read_text() == "hello"
    assert (written.bytes, written.sha256) == (5, hashlib.sha256(b"hello").hexdigest())
    assert names(tmp_path / "a") == ["b.txt"]


def test_a_writer_that_raises_leaves_the_old_file_and_nothing_else(tmp_path):
    def breaks(path: Path):
        path.write_text("half")
        raise OSError("disk full")

    write_text(tmp_path / "x", "old")
    with pytest.raises(OSError, match="disk full"):
        write_file(tmp_path / "x", breaks)
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_before_the_rename_the_new_file_is_whole_and_the_old_one_is_read(tmp_path):
    seen = []

    def look() -> None:
        (temporary,) = tmp_path.glob("x.tmp-*")
        seen.append((temporary.read_text(), (tmp_path / "x").read_text()))

    write_text(tmp_path / "x", "old")
    write_bytes(tmp_path / "x", b"new", before_rename=look)
    assert seen == [("new", "old")]
    assert (tmp_path / "x").read_text() == "new"


def test_the_file_is_flushed_before_its_name_and_the_folder_after_it(tmp_path, monkeypatch):
    order = []
    flush, replace = durable.flush, Path.replace
    monkeypatch.setattr(durable, "flush", lambda path: (order.append(("flush", path.name)), flush(path)))
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (order.append(("rename", Path(to).name)), replace(self, to))[1]
    )
    write_file(tmp_path / "d" / "x", lambda path: path.write_text("x"), suffix="s")
    assert order == [("flush", "x.tmp-s"), ("rename", "x"), ("flush", "d")]


@pytest.mark.parametrize(("flushed", "flushes"), [("bytes", ["x.tmp-s"]), ("nothing", [])])
def test_less_is_flushed_where_others_see_to_it(tmp_path, monkeypatch, flushed, flushes):
    seen = []
    monkeypatch.setattr(durable, "flush", lambda path: seen.append(path.name))
    written = write_file(tmp_path / "x", lambda path: path.write_text("x"), suffix="s", flushed=flushed)
    assert seen == flushes and written.bytes == 1


def test_a_folder_appears_whole_in_the_place_of_the_old_one(tmp_path):
    with write_folder(tmp_path / "model", suffix="r") as folder:
        assert folder == tmp_path / "model.tmp-r"
        (folder / "old").write_text("w")
    with write_folder(tmp_path / "model") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "new").write_text("w")
        assert names(tmp_path / "model") == ["old"]
    assert names(tmp_path / "model") == ["sub"]
    with pytest.raises(RuntimeError), write_folder(tmp_path / "model") as folder:
        (folder / "half").write_text("w")
        raise RuntimeError
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["sub"]


def test_two_folders_exchange_their_names_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system exchanges no names")
    assert (names(tmp_path / "a"), names(tmp_path / "b")) == (["b"], ["a"])
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "gone")


def test_a_sweep_removes_what_is_half_written_and_spares_what_may_still_be_written(tmp_path):
    (tmp_path / "sub" / "f.tmp-1").mkdir(parents=True)
    (tmp_path / "sub" / "f.tmp-1" / "x.tmp-2").write_text("")
    (tmp_path / "y.tmp-3").write_text("")
    (tmp_path / "kept").write_text("")
    os.utime(tmp_path / "y.tmp-3", (0, 0))
    sweep(tmp_path, older_than=3600, recursive=False)
    assert names(tmp_path) == ["kept", "sub"]
    sweep(tmp_path)
    assert names(tmp_path) == ["kept", "sub"] and names(tmp_path / "sub") == []


def test_what_is_not_there_is_removed_without_an_error_and_a_link_without_its_target(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    remove(tmp_path / "gone")
    remove(tmp_path / "link")
    assert names(tmp_path) == ["real"]
