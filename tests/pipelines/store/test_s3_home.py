"""HOME in a bucket: one host finds, reads and replaces what another made; nothing is ever torn."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.errors import ConfigError, StageBusy
from pipelines.registry.mlflow_store import Tracker
from pipelines.retention.collection import remove_output
from pipelines.snapshots import Snapshot, all_registered
from pipelines.stage import Stage, Work
from pipelines.store import s3 as s3_module
from pipelines.store.commit import claim
from pipelines.store.home import home_path, open_home
from pipelines.store.locks import Owner
from pipelines.store.mirror import MIRRORS_VARIABLE, remote_of, store_at
from pipelines.store.outputs import load_receipt
from pipelines.store.receipts import RECEIPT
from pipelines.verify import targets, verify
from tests.pipelines.small_stage import TOY, ToyConfig, input_of, kill_at, output, run, write_words


class Hosts:
    """Hosts that share one HOME in a bucket, each with a mirror of its own."""

    def __init__(self, url: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.url, self.folder, self.patch = url, folder, patch

    def home(self, host: str) -> Path:
        """HOME as that host sees it, refreshed."""
        self.patch.setenv(MIRRORS_VARIABLE, str(self.folder / host))
        return open_home(self.url)


@pytest.fixture
def hosts(s3, tmp_path, monkeypatch):
    return Hosts(str(s3), tmp_path, monkeypatch)


def none_may_work(work: Work) -> None:
    raise AssertionError("there is nothing to do")


def read_words(work: Work):
    """A stage that reads an output of the toy stage."""
    texts = [path.read_text() for path in work.input("corpus").files("words/")]
    yield work.parts.write("all", {"all.txt": lambda path: path.write_text(" ".join(texts))})


READER = Stage("reader", 1, ToyConfig, ("corpus",), read_words)


def test_what_one_host_made_another_finds_and_reads(hosts, tmp_path):
    receipt = run(hosts.home("a"))
    assert receipt.digest == run(tmp_path / "disk").digest

    home = hosts.home("b")
    assert run(home, replace(TOY, run=none_may_work)) == receipt
    assert not list(output(home, receipt).glob("words/*"))  # a look downloads nothing but receipts
    read = run(home, READER, inputs=input_of(home, receipt))
    assert (home / "reader" / read.fingerprint / "all.txt").read_text() == "one three two"
    assert (output(home, receipt) / "model" / "weights").read_text() == "w"


@pytest.mark.parametrize(
    "point", ["toy.part.before_receipt:2", "toy.folder.before_rename", "toy.receipt.before_rename"]
)
def test_what_a_killed_host_began_another_ends_in_the_same_bytes(hosts, tmp_path, point):
    kill_at(point, hosts.home("a"))
    home, whole = hosts.home("b"), run(tmp_path / "disk")
    assert load_receipt(output(home, whole)) is None
    lock = home / "toy" / f"{whole.fingerprint}.lock"
    assert store_at(lock.parent).read(lock.name) is not None  # of a process that is gone
    assert run(home).digest == whole.digest
    shutil.rmtree(hosts.folder / "a")  # its mirror is lost, and the bucket has it all
    home = hosts.home("a")
    assert run(home, replace(TOY, run=none_may_work)).digest == whole.digest
    verification = [verify(target) for target in targets(home)]
    assert [v.faults for v in verification] == [()] and verification[0].files == len(whole.files)


@pytest.mark.parametrize("point", ["", "toy.swap.before_exchange", "toy.swap.between_renames"])
def test_a_forced_output_takes_the_old_ones_place_for_every_host(hosts, point):
    first = run(hosts.home("a"))
    if point:
        kill_at(point, hosts.home("b"), force=True)
    else:
        run(hosts.home("b"), force=True)
    for host in ("a", "c"):
        home = hosts.home(host)
        receipt = run(home, replace(TOY, run=none_may_work))
        assert receipt.digest == first.digest and receipt.finished_at > first.finished_at
        run(home, READER, inputs=input_of(home, receipt))
    names = {key.split("/")[1] for key in remote_of(home).sizes("toy/")}
    assert names == {first.fingerprint}  # no forced one, no lock, no mark


def test_who_slept_while_another_took_over_commits_nothing(hosts):
    home = hosts.home("a")

    def overtaken(work: Work):
        yield from write_words(work)
        claim(work.out, Owner.me("next", "toy"))  # a second token, since the lock's owner seemed dead

    with pytest.raises(StageBusy, match="was taken over by another run while this one slept"):
        run(home, replace(TOY, run=overtaken))
    (out,) = [path for path in (home / "toy").iterdir() if path.is_dir()]
    token = store_at(out).read(RECEIPT)
    assert token.content.startswith(b"claim 2 next") and load_receipt(out) is None


def test_an_output_whose_object_is_gone_is_made_again(hosts):
    home = hosts.home("a")
    receipt = run(home)
    remote_of(output(home, receipt)).remove("words/two.txt")
    home = hosts.home("b")
    assert load_receipt(output(home, receipt)) is None
    ((fault,),) = [verify(target).faults for target in targets(home)]
    assert fault.what == "it is missing" and fault.path.name == "two.txt"
    assert run(home).digest == receipt.digest
    assert load_receipt(output(home, receipt)) is not None


def test_an_output_that_is_removed_is_gone_for_every_host(hosts):
    receipt = run(hosts.home("a"))
    run(hosts.home("b"))
    home = hosts.home("a")
    assert remove_output(output(home, receipt), Owner.me("gc", "gc")) is None
    assert remote_of(home).sizes("toy/") == {}
    assert load_receipt(output(hosts.home("b"), receipt)) is None
    assert not (output(hosts.home("b"), receipt) / RECEIPT).exists()


def test_homes_own_small_files_are_shared(hosts):
    store = store_at(hosts.home("a") / "registered")
    fields = {"name": "monday", "corpus": "parquet:/x", "digest": "0" * 64, "at": "2026-11-27"}
    assert set(fields) == set(Snapshot.__dataclass_fields__)
    store.put("monday.json", json.dumps(fields).encode(), if_match=None)
    assert [snapshot.name for snapshot in all_registered(hosts.home("b"))] == ["monday"]


def test_a_home_in_a_bucket_wants_an_mlflow_server(hosts, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match=r"cannot be in s3://\S+; set MLFLOW_TRACKING_URI"):
        Tracker(hosts.home("a"))


def test_what_keeps_no_conditions_or_does_not_answer_is_refused_in_one_line(hosts, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="HOME s3://no-such-bucket/runs cannot be read") as missing:
        home_path("s3://no-such-bucket/runs")
    put = s3_module.S3Store._put
    monkeypatch.setattr(
        s3_module.S3Store, "_put", lambda self, key, content, **condition: put(self, key, content)
    )
    with pytest.raises(ConfigError, match="does not keep the conditions of a put") as careless:
        hosts.home("a")
    assert not any("\n" in str(error.value) for error in (missing, careless))
