"""One owner per output: a second run learns who the first is, and a dead owner's lock is taken over."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import psutil
import pytest

from pipelines.errors import StageBusy
from pipelines.store import locks
from pipelines.store.locks import STALE_SECONDS, Owner, lock, lock_owner

HOLD = (
    "import sys, time; from pathlib import Path; from pipelines.store.locks import lock\n"
    "with lock(Path(sys.argv[1]), 'theirs', 'toy'):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "x.lock")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_learns_at_once_who_owns_the_output(tmp_path, holder):
    started = time.monotonic()
    with pytest.raises(StageBusy) as busy, lock(tmp_path / "x.lock", "ours", "filter abc"):
        pass
    assert time.monotonic() - started < 5
    assert f"process {holder.pid} on {socket.gethostname()}" in str(busy.value)
    assert "filter abc" in str(busy.value)
    assert len(str(busy.value).splitlines()) == 1


def test_a_killed_owners_lock_is_taken_over_at_once(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)  # and not waited for: it stays as a zombie
    psutil.wait_procs([psutil.Process(holder.pid)], timeout=0.5)
    with lock(tmp_path / "x.lock", "ours", "toy"):
        owner = lock_owner(tmp_path / "x.lock")
        assert owner is not None and (owner.pid, owner.run_id) == (os.getpid(), "ours")


def test_a_recycled_process_id_is_not_the_owner(tmp_path):
    past = replace(Owner.me("old"), born=1.0)
    (tmp_path / "x.lock").write_text(json.dumps(asdict(past)))
    with lock(tmp_path / "x.lock", "ours", "toy"):
        pass


def test_an_owner_on_another_host_lives_by_its_heartbeat(tmp_path):
    path = tmp_path / "x.lock"
    path.write_text(json.dumps(asdict(replace(Owner.me("far"), host="elsewhere"))))
    with pytest.raises(StageBusy, match="elsewhere"), lock(path, "ours", "toy"):
        pass
    long_ago = time.time() - STALE_SECONDS - 1
    os.utime(path, (long_ago, long_ago))
    with lock(path, "ours", "toy"):
        pass


def test_the_owner_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.05)
    path = tmp_path / "x.lock"
    with lock(path, "ours", "toy"):
        os.utime(path, (0, 0))
        time.sleep(0.3)
        assert time.time() - path.stat().st_mtime < 5


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_a_lock_that_cannot_be_read_belongs_to_nobody(tmp_path, content):
    (tmp_path / "x.lock").write_text(content)
    assert lock_owner(tmp_path / "x.lock") is None
    with lock(tmp_path / "x.lock", "ours", "toy"):
        pass


def test_the_lock_is_gone_when_the_owner_leaves_also_by_an_error(tmp_path):
    with pytest.raises(RuntimeError), lock(tmp_path / "x.lock", "ours", "toy"):
        raise RuntimeError
    assert not (tmp_path / "x.lock").exists()


def test_an_owner_whose_lock_was_taken_over_leaves_the_new_owners_lock(tmp_path):
    path = tmp_path / "x.lock"
    with lock(path, "slept", "toy"):
        path.write_text(json.dumps(asdict(Owner.me("new owner"))))
    assert path.exists()


def test_of_many_who_take_over_a_dead_owners_lock_one_holds_it(tmp_path):
    path = tmp_path / "x.lock"
    holding, most, refused = 0, 0, 0
    guard, barrier = threading.Lock(), threading.Barrier(8)

    def contend(number: int) -> None:
        nonlocal holding, most, refused
        for _ in range(10):
            path.write_text(json.dumps(asdict(replace(Owner.me("dead"), born=1.0))))
            barrier.wait()
            try:
                with lock(path, f"run{number}", "toy"):
                    with guard:
                        holding += 1
                        most = max(most, holding)
                    time.sleep(0.01)
                    with guard:
                        holding -= 1
            except StageBusy:
                with guard:
                    refused += 1
            barrier.wait()

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused > 0
