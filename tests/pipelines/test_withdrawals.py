"""A withdrawal means a record and its image wherever it comes again, and touches nothing else."""

import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.corpus.readers import open_corpus, read_fragment
from components.toyworld.web import ToyWeb, write_toy_web
from pipelines.config import load_config
from pipelines.errors import ConfigError
from pipelines.graph import stage_named
from pipelines.pipeline import Pipeline
from pipelines.registry.model_version import WITHDRAWN_TAG, WithdrawnRecords, withdrawn_in
from pipelines.stage import Input, fingerprint
from pipelines.stages.filter import FilterConfig, key_of
from pipelines.withdrawals import (
    Withdrawal,
    less_withdrawn,
    record_withdrawal,
    withdrawals,
)
from tests.pipelines.retention.small_runs import run

RECORDS = 150


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> ToyWeb:
    return write_toy_web(tmp_path_factory.mktemp("toy"), records=RECORDS, seed=1, labelled=1)


@pytest.fixture
def corpus(toy: ToyWeb, tmp_path) -> Input:
    folder = shutil.copytree(toy.web, tmp_path / "web")
    uri = f"parquet:{folder}"
    return Input("corpus", uri, open_corpus(uri).digest())


def records(corpus: Input, snapshot: str) -> dict[str, str]:
    """Key -> sha256 of the image, in order."""
    return {
        key_of(record, snapshot): hashlib.sha256(record.image or b"").hexdigest()
        for fragment in open_corpus(corpus.location).fragments
        for record in read_fragment(fragment)
    }


def filter_fingerprint(corpus: Input) -> str:
    inputs = {"corpus": (corpus,), "annotators": (Input("annotators", "", "a"),)}
    return fingerprint(stage_named("filter"), "s", FilterConfig(), inputs)


def test_nothing_withdrawn_leaves_the_corpus_as_it_is_and_reads_nothing(corpus, tmp_path):
    home = tmp_path / "home"
    assert less_withdrawn(corpus, "s", home) is corpus and not home.exists()


def test_a_withdrawn_key_changes_the_fingerprint_and_one_that_is_not_there_does_not(corpus, tmp_path):
    before = filter_fingerprint(corpus)
    record_withdrawal(tmp_path, Withdrawal("0" * 32, None))
    assert less_withdrawn(corpus, "s", tmp_path) == corpus
    assert filter_fingerprint(less_withdrawn(corpus, "s", tmp_path)) == before

    key = list(records(corpus, "s"))[7]
    record_withdrawal(tmp_path, Withdrawal(key, None))
    touched = less_withdrawn(corpus, "s", tmp_path)
    assert touched.withdrawn == (key,) and touched.digest == corpus.digest
    assert filter_fingerprint(touched) != before
    assert less_withdrawn(corpus, "other", tmp_path).withdrawn == ()  # there it has another key


def test_an_image_is_withdrawn_in_every_copy_and_every_snapshot(corpus, tmp_path):
    known = records(corpus, "s")
    digests = list(known.values())
    sha256 = next(d for d in digests if digests.count(d) > 1 and d != hashlib.sha256(b"").hexdigest())
    record_withdrawal(tmp_path, Withdrawal(None, sha256))
    for snapshot in ("s", "later"):
        expected = sorted(key for key, d in records(corpus, snapshot).items() if d == sha256)
        assert list(less_withdrawn(corpus, snapshot, tmp_path).withdrawn) == expected
        assert len(expected) > 1


def test_a_corpus_that_is_gone_is_still_known(corpus, tmp_path):
    key, other = list(records(corpus, "s"))[:2]
    record_withdrawal(tmp_path, Withdrawal(key, None))
    less_withdrawn(corpus, "s", tmp_path)
    shutil.rmtree(Path(corpus.location.partition(":")[2]))
    record_withdrawal(tmp_path, Withdrawal(other, None))
    assert set(less_withdrawn(corpus, "s", tmp_path).withdrawn) == {key, other}


def test_a_damaged_memory_of_a_corpus_is_made_again(corpus, tmp_path):
    key = next(iter(records(corpus, "s")))
    record_withdrawal(tmp_path, Withdrawal(key, None))
    less_withdrawn(corpus, "s", tmp_path)
    (memory,) = (tmp_path / "cache" / "records").iterdir()
    memory.write_bytes(b"PAR1 torn")
    assert less_withdrawn(corpus, "s", tmp_path).withdrawn == (key,)
    assert len(pq.read_table(memory)) == RECORDS


def test_a_withdrawal_stands_as_it_was_first_made(tmp_path):
    first = Withdrawal("1" * 32, "2" * 64, "a letter", "2026-11-27T10:00:00+00:00", "ann")
    assert record_withdrawal(tmp_path, first)
    assert not record_withdrawal(tmp_path, Withdrawal("1" * 32, None, "again"))
    assert withdrawals(tmp_path) == (first,)


@pytest.mark.parametrize("content", ["torn", "{}", '{"key": "3", "sha256": null}'])
def test_a_withdrawal_that_cannot_be_read_is_never_passed_over(tmp_path, content):
    record_withdrawal(tmp_path, Withdrawal("1" * 32, None))
    (tmp_path / "withdrawn" / f"{'1' * 32}.json").write_text(content)
    with pytest.raises(ConfigError, match="damaged, not a withdrawal"):
        withdrawals(tmp_path)


def test_another_snapshots_shards_from_before_a_withdrawal_are_not_trained_on(tmp_path):
    both = 'train_snapshots=["a","b"]'
    run(tmp_path, snapshot="a", corpus="toy:20")
    run(tmp_path, both, snapshot="b", corpus="toy:21")
    config = load_config("micro", ["toy.labelled=5"], snapshot="a", corpus="toy:20")
    corpus = Pipeline(config, tmp_path).source("corpus")
    record_withdrawal(tmp_path, Withdrawal(next(iter(records(corpus, "a"))), None))
    Pipeline(config, tmp_path).plan()  # reads the corpus; a filter that writes no records leaves none to see
    with pytest.raises(ConfigError, match="train_snapshots: no shard of snapshot 'a'"):
        run(tmp_path, both, snapshot="b", corpus="toy:21")
    run(tmp_path, snapshot="a", corpus="toy:20")
    run(tmp_path, both, snapshot="b", corpus="toy:21")


def test_a_models_tag_says_how_many_records_and_when(tmp_path):
    withdrawn = WithdrawnRecords(2, "2026-11-27")
    assert withdrawn_in({WITHDRAWN_TAG: withdrawn.to_tag()}) == withdrawn
    assert withdrawn.note == "trained on 2 records that were withdrawn since (noted 2026-11-27)"
    assert withdrawn_in({}) is None
    assert withdrawn_in({WITHDRAWN_TAG: "yes"}) is not None  # a takedown by another version is one, too
