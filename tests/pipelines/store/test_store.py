"""The contract of a store, in a local folder and in a bucket: locks and receipts run on both."""

import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from components.durable import Written
from pipelines.errors import StageBusy
from pipelines.store import locks
from pipelines.store.local import LocalStore
from pipelines.store.locks import STALE_SECONDS, Lease, Owner, exclusive, hold, owner_of, reading
from pipelines.store.receipts import Counts, PartReceipt, ReceiptError, read_receipt, write_receipt
from pipelines.store.s3 import S3Store
from pipelines.store.store import Store


@pytest.fixture(params=["local folder", "S3"])
def store(request, tmp_path) -> Store:
    if request.param == "local folder":
        return LocalStore(tmp_path / "root")
    bucket, _, prefix = request.getfixturevalue("s3").path.partition("/")
    return S3Store(bucket, prefix)


def me(run_id: str, work: str = "toy") -> Owner:
    return Owner.me(run_id, work)


def test_what_was_written_is_read_with_its_size_and_hash(store):
    assert store.read("a/b") is None
    written = store.write("a/b", lambda path: path.write_text("hello"))
    assert written == Written(5, hashlib.sha256(b"hello").hexdigest())
    stored = store.read("a/b")
    assert stored is not None and stored.content == b"hello"
    assert abs(stored.modified - time.time()) < 60


def test_a_put_changes_nothing_unless_its_condition_holds(store):
    first = store.put("k", b"1", if_match=None)
    assert first is not None
    assert store.put("k", b"2", if_match=None) is None  # something is there
    assert store.put("k", b"2", if_match="another tag") is None
    assert store.put("other", b"2", if_match=first) is None  # nothing is there
    assert store.read("k").content == b"1" and store.read("other") is None

    second = store.put("k", b"2", if_match=first)
    assert second not in (None, first) and store.read("k").tag == second
    assert not store.delete("k", if_match=first)
    assert store.read("k").content == b"2"
    assert store.delete("k", if_match=second)
    assert store.read("k") is None and not store.delete("k", if_match=second)
    assert store.put("k", b"3", if_match=None) is not None  # absent again


def test_keys_are_those_of_one_level_in_order(store):
    for key in ("x/b", "x/a", "x/c/d", "xy", "x/.guard" if isinstance(store, LocalStore) else "x/c/e"):
        store.put(key, b"1", if_match=None)
    assert store.keys("x/") == ["x/a", "x/b"]
    assert store.keys("x/a") == ["x/a"]
    assert store.keys("x") == ["xy"]
    assert store.keys("nothing/") == []


def test_of_many_puts_with_one_condition_one_succeeds(store):
    tag = store.put("k", b"0", if_match=None)
    for round_number in range(10):
        with ThreadPoolExecutor(8) as pool:
            contents = [f"{round_number}-{n}".encode() for n in range(8)]
            tags = list(pool.map(lambda content, tag=tag: store.put("k", content, if_match=tag), contents))
        (winner,) = [n for n, new_tag in enumerate(tags) if new_tag is not None]
        assert store.read("k").content == contents[winner]
        tag = tags[winner]


def test_many_who_count_by_condition_lose_no_count(store):
    def add(_: int) -> None:
        while True:
            stored = store.read("n")
            count = int(stored.content) if stored else 0
            if store.put("n", str(count + 1).encode(), if_match=stored.tag if stored else None):
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(40)))
    assert store.read("n").content == b"40"


def test_a_lock_has_one_owner_who_is_named_and_gives_it_back(store):
    with hold(store, "x.lock", me("first", "filter abc")) as lease:
        assert lease.held()
        named = r"^shard abc is being made by process \d+ on .* \(run first\); wait for it, or stop it"
        with pytest.raises(StageBusy, match=named), hold(store, "x.lock", me("second", "shard abc")):
            pass
        assert owner_of(store, "x.lock").work == "filter abc"
    assert owner_of(store, "x.lock") is None
    with hold(store, "x.lock", me("second")):
        pass


def test_a_lock_is_its_owners_when_the_answer_to_its_put_was_lost(store, monkeypatch):
    put, lost = type(store).put, []

    def deaf_once(self: Store, key: str, content: bytes, *, if_match: str | None) -> str | None:
        tag = put(self, key, content, if_match=if_match)
        return tag if lost else lost.append(tag)

    monkeypatch.setattr(type(store), "put", deaf_once)
    with hold(store, "x.lock", me("first")) as lease:
        assert lost[0] is not None and lease.held()
    assert owner_of(store, "x.lock") is None


def test_a_dead_owners_lock_is_taken_over_once_and_the_dead_one_finds_out(store):
    dead = Lease(store, "x.lock", replace(me("dead"), born=1.0))  # its process id is another process's now
    assert dead.take() is None
    with hold(store, "x.lock", me("next")):
        assert not dead.held()
        dead.release()
        assert owner_of(store, "x.lock").run_id == "next"
        with pytest.raises(StageBusy, match="run next"), hold(store, "x.lock", me("third")):
            pass


def test_an_owner_elsewhere_lives_by_its_heartbeat_and_not_longer(store, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.05)
    far = Lease(store, "x.lock", replace(me("far"), host="elsewhere"))
    assert far.take() is None
    first = store.read("x.lock").tag
    time.sleep(0.3)
    assert store.read("x.lock").tag != first  # it beats
    with pytest.raises(StageBusy, match="on elsewhere"), hold(store, "x.lock", me("ours")):
        pass
    far._released.set()  # it stops: its host is gone
    far._thread.join()
    if isinstance(store, LocalStore):
        os.utime(store.root / "x.lock", (time.time() - STALE_SECONDS - 1,) * 2)
    else:
        monkeypatch.setattr(locks, "STALE_SECONDS", 1.0)  # nobody sets the time of an object
        time.sleep(2.1)  # it is in whole seconds
    with hold(store, "x.lock", me("ours")):
        assert not far.held()


def test_many_read_at_a_time_and_who_replaces_waits_for_all_of_them(store):
    order, waited_for = [], []

    def replace_output() -> None:
        def on_wait(readers):
            waited_for.extend(sorted(reader.work for reader in readers))
            order.append("waits")

        with exclusive(store, "out", me("forced"), on_wait):
            order.append("replaced")

    replacer = threading.Thread(target=replace_output)
    with reading(store, "out", me("r1", "recaption a")):
        with reading(store, "out", me("r2", "train b")):
            replacer.start()
            while not order:
                time.sleep(0.01)
        time.sleep(0.2)
        with reading(store, "out", me("r3", "distill c")):  # let in while the replacer waits
            order.append("read")
    replacer.join()
    assert order == ["waits", "read", "replaced"]
    assert waited_for == ["recaption a", "train b"]
    assert store.keys("out.") == []


def test_a_reader_waits_while_an_output_is_replaced(store):
    order = []

    def read() -> None:
        with reading(store, "out", me("r")):
            order.append("read")

    reader = threading.Thread(target=read)
    with exclusive(store, "out", me("forced")):
        reader.start()
        time.sleep(0.3)
        order.append("replaced")
    reader.join()
    assert order == ["replaced", "read"]


def test_readers_and_replacers_never_meet(store, monkeypatch):
    monkeypatch.setattr(locks, "READERS_SECONDS", 0.001)
    readers, replacing, met = 0, 0, 0
    guard = threading.Lock()

    def read(number: int) -> None:
        nonlocal readers, met
        with reading(store, "out", me(f"r{number}")):
            with guard:
                readers += 1
                met += replacing
            time.sleep(0.002)
            with guard:
                readers -= 1

    def replace_output(number: int) -> None:
        nonlocal replacing, met
        with hold_one, exclusive(store, "out", me(f"f{number}")):
            with guard:
                replacing += 1
                met += readers
            time.sleep(0.002)
            with guard:
                replacing -= 1

    hold_one = threading.Lock()  # the output's own lock: one forced run at a time
    with ThreadPoolExecutor(6) as pool:
        done = [pool.submit(replace_output if n % 5 == 0 else read, n) for n in range(40)]
        for future in done:
            future.result()
    assert met == 0


def test_a_dead_reader_holds_nobody_up(store):
    dead = Lease(store, "out.reader-dead", replace(me("dead"), born=1.0))
    assert dead.take() is None
    with exclusive(store, "out", me("forced")):
        assert store.keys("out.reader-") == []
    dead.release()


def test_a_receipt_is_read_as_it_was_written_and_an_edited_one_is_found(store):
    counts = Counts.model_validate({"in": 3, "kept": 2, "rejected": 1})
    receipt = write_receipt(store, "parts/p.json", PartReceipt(name="p", files=(), counts=counts))
    assert read_receipt(store, "parts/p.json", PartReceipt) == receipt
    assert read_receipt(store, "parts/q.json", PartReceipt) is None
    stored = store.read("parts/p.json")
    edited = stored.content.replace(b'"kept": 2', b'"kept": 3').replace(b'"kept":2', b'"kept":3')
    assert edited != stored.content
    assert store.put("parts/p.json", edited, if_match=stored.tag)
    with pytest.raises(ReceiptError, match="it was edited"):
        read_receipt(store, "parts/p.json", PartReceipt)


def test_a_receipt_killed_before_its_commit_is_not_there(store):
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        write_receipt(store, "receipt.json", PartReceipt(name="p", files=()), before_commit=kill)
    assert read_receipt(store, "receipt.json", PartReceipt) is None
