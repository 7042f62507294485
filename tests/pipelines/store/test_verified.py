"""The memory of what was hashed: it stands as long as the files' sizes, times and inodes do."""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

from pipelines.store import local
from pipelines.store.verified import VerifiedFiles, state_of


def test_a_value_is_computed_once_for_one_state_of_the_files(tmp_path):
    calls = []

    def compute() -> str:
        calls.append(1)
        return "digest"

    path = tmp_path / "x"
    path.write_text("rows")
    for _ in range(2):
        assert VerifiedFiles(tmp_path).value("parquet:x", state_of([path]), compute) == "digest"
    assert calls == [1]
    path.write_text("rowz")
    VerifiedFiles(tmp_path).value("parquet:x", state_of([path]), compute)
    assert calls == [1, 1]


def test_size_time_inode_and_name_are_what_tells_a_change(tmp_path):
    path = tmp_path / "x"
    path.write_text("rows")
    first, stat = state_of([path]), path.stat()

    path.write_text("rowz")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert state_of([path]) == first  # the same size, time and inode: only a full hash finds this
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert state_of([path]) != first
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    shutil.copy2(path, tmp_path / "copy")
    (tmp_path / "copy").replace(path)
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert state_of([path]) != first  # another inode
    assert state_of([path, path]) != state_of([path])
    assert state_of([tmp_path / "gone"]) is None


def test_what_is_forgotten_is_hashed_again_and_the_rest_is_kept(tmp_path):
    memory = VerifiedFiles(tmp_path)
    for name in ("a", "b"):
        memory.record(name, "state", f"value of {name}")
    memory.forget("a")
    assert memory.recall("a", "state") is None
    assert memory.recall("b", "state") == "value of b"
    assert memory.recall("b", "another state") is None


def test_a_damaged_memory_is_an_empty_one(tmp_path):
    memory = VerifiedFiles(tmp_path)
    memory.record("a", "s", "v")
    for content in ("", "{", "[]", "7", '{"a": 1}', '{"a": ["s"]}', '{"a": null}'):
        (tmp_path / "cache" / "verified.json").write_text(content)
        assert memory.recall("a", "s") is None
        memory.record("a", "s", "v")
        assert memory.recall("a", "s") == "v"


def test_a_home_that_is_not_there_is_left_so(tmp_path):
    memory = VerifiedFiles(tmp_path / "home")
    assert memory.value("a", "s", lambda: "v") == "v"
    assert not (tmp_path / "home").exists()


def test_a_full_disk_costs_the_memory_and_nothing_else(tmp_path, monkeypatch):
    def no_space(path, content, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local, "write_bytes", no_space)
    assert VerifiedFiles(tmp_path).value("a", "s", lambda: "v") == "v"
    assert VerifiedFiles(tmp_path).recall("a", "s") is None


def test_runs_at_the_same_time_keep_each_others_entries(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: VerifiedFiles(tmp_path).record(str(n), "s", "v"), range(20)))
    assert [n for n in range(20) if VerifiedFiles(tmp_path).recall(str(n), "s") != "v"] == []
