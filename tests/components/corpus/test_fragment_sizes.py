"""Fragments are bounded in records and in bytes, nothing is read twice, and memory follows the fragment."""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.corpus.fragments import MIB, FragmentSize, cut_groups, cut_records
from components.corpus.readers import Corpus, open_corpus, read_fragment, read_stream

IMAGE_BYTES = 200_000
LIMITS = st.builds(FragmentSize, rows=st.integers(1, 9), bytes=st.integers(1, 500))


@given(sizes=st.lists(st.integers(0, 300), max_size=40), limit=LIMITS)
def test_records_are_cut_in_order_and_no_fragment_is_larger_than_asked_for(sizes, limit):
    spans = cut_records(sizes, limit)
    assert [row for start, stop in spans for row in range(start, stop)] == list(range(len(sizes)))
    for start, stop in spans:
        assert stop - start <= limit.rows
        assert sum(sizes[start:stop]) <= limit.bytes or stop - start == 1
    for start, stop in spans[:-1]:
        full = stop - start == limit.rows or sum(sizes[start : stop + 1]) > limit.bytes
        assert full, f"record {stop} would have fitted, too"


@given(groups=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 900)), max_size=12), limit=LIMITS)
def test_a_row_group_lies_in_one_stream_and_every_row_in_one_fragment(groups, limit):
    streams = cut_groups(groups, limit)
    rows = [row for spans in streams for start, stop in spans for row in range(start, stop)]
    assert rows == list(range(sum(count for count, _ in groups)))
    at = 0
    for count, size in groups:
        touching = [s for s in streams if count and s[0][0] < at + count and s[-1][1] > at]
        assert len(touching) == (1 if count else 0)
        for start, stop in touching[0] if touching else ():
            assert stop - start <= limit.rows
            inside = min(stop, at + count) - max(start, at)
            assert inside * size / count <= limit.bytes or inside <= 1
        at += count


def test_small_row_groups_are_read_together_up_to_the_limit():
    assert cut_groups([(100, 1)] * 12, FragmentSize(512, 1000)) == [[(0, 500)], [(500, 1000)], [(1000, 1200)]]
    assert cut_groups([(100, 40)] * 4, FragmentSize(512, 100)) == [[(0, 200)], [(200, 400)]]


def test_a_row_group_that_is_too_large_is_one_stream_of_several_fragments():
    assert cut_groups([(300, 1)], FragmentSize(100, 1000)) == [[(0, 100), (100, 200), (200, 300)]]
    assert cut_groups([(10, 100)], FragmentSize(100, 40)) == [[(0, 4), (4, 8), (8, 10)]]


@pytest.mark.parametrize("name", ["rows_per_fragment", "fragment_bytes"])
def test_a_size_below_one_is_one_line(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} is 0; it must be 1 or more"):
        open_corpus(f"folder:{tmp_path}", **{name: 0})


def images(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [rng.bytes(IMAGE_BYTES) for _ in range(count)]


def write_parquet(folder: Path, count: int, row_group: int) -> str:
    table = pa.table({"image": images(count), "alt_text": [f"text {n}" for n in range(count)]})
    pq.write_table(table, folder / "web.parquet", row_group_size=row_group, write_batch_size=1)
    return f"parquet:{folder}/web.parquet"


def write_pointers(folder: Path, count: int) -> str:
    for n, data in enumerate(images(count)):
        (folder / f"{n:03d}.jpg").write_bytes(data)
    table = pa.table({"image_path": [f"{n:03d}.jpg" for n in range(count)], "alt_text": ["text"] * count})
    pq.write_table(table, folder / "web.parquet", row_group_size=4)
    return f"parquet:{folder}/web.parquet"


def write_folder(folder: Path, count: int) -> str:
    for n, data in enumerate(images(count)):
        (folder / f"{n:03d}.jpg").write_bytes(data)
    return f"folder:{folder}"


def write_tar(folder: Path, count: int, mode: str) -> str:
    path = folder / ("web.tar.gz" if mode == "w:gz" else "web.tar")
    with tarfile.open(path, mode) as tar:
        for n, data in enumerate(images(count)):
            long_name = "a" * 120  # an extended header comes before the member
            for name, content in ((f"{long_name}{n:03d}.jpg", data), (f"{long_name}{n:03d}.txt", b"text")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return f"webdataset:{path}"


CORPORA = {
    "parquet, small row groups": lambda folder: write_parquet(folder, 24, 4),
    "parquet, one large row group": lambda folder: write_parquet(folder, 24, 24),
    "parquet with paths": lambda folder: write_pointers(folder, 24),
    "folder": lambda folder: write_folder(folder, 24),
    "plain tar": lambda folder: write_tar(folder, 24, "w"),
    "compressed tar": lambda folder: write_tar(folder, 24, "w:gz"),
}


def bytes_read(corpus: Corpus) -> int:
    """Bytes that reading the whole corpus asks the system for."""
    process = psutil.Process()
    before = process.io_counters().read_chars
    for fragments in corpus.streams:
        for _, records in read_stream(fragments):
            for _ in records:
                pass
    return int(process.io_counters().read_chars - before)


@pytest.mark.parametrize("kind", CORPORA)
def test_a_fragment_holds_no_more_bytes_than_asked_for(tmp_path, kind):
    corpus = open_corpus(CORPORA[kind](tmp_path), fragment_bytes=5 * IMAGE_BYTES)
    whole = [record.image for record in _everything(open_corpus(corpus.uri))]
    assert whole == images(24)
    assert len(corpus.fragments) >= 24 // 5
    assert [fragment.index for fragment in corpus.fragments] == list(range(len(corpus.fragments)))
    held = [list(read_fragment(fragment)) for fragment in corpus.fragments]
    assert [record.image for records in held for record in records] == whole
    assert max(sum(len(record.image or b"") for record in records) for records in held) <= 5 * IMAGE_BYTES


@pytest.mark.parametrize("kind", CORPORA)
def test_nothing_is_read_twice(tmp_path, kind):
    corpus = open_corpus(CORPORA[kind](tmp_path), fragment_bytes=5 * IMAGE_BYTES)
    total = 24 * IMAGE_BYTES
    assert 0.95 * total < bytes_read(corpus) < 1.25 * total


def test_only_what_shares_a_row_group_or_a_compressed_tar_is_read_in_one_pass(tmp_path):
    streams = {}
    for kind, write in CORPORA.items():
        folder = tmp_path / kind
        folder.mkdir()
        streams[kind] = [len(s) for s in open_corpus(write(folder), fragment_bytes=5 * IMAGE_BYTES).streams]
    # The texts count, too: five images fill a fragment only where these lie outside it.
    assert streams["parquet, one large row group"] == streams["compressed tar"] == [6]
    assert streams["parquet, small row groups"] == streams["plain tar"] == [1] * 6
    assert streams["folder"] == [1] * 5


def test_a_stream_gives_each_fragment_its_records_even_where_some_are_skipped(tmp_path):
    corpus = open_corpus(write_parquet(tmp_path, 24, 24), rows_per_fragment=7)
    (fragments,) = corpus.streams
    texts = {}
    for fragment, records in read_stream(fragments):
        if fragment.index != 1:
            texts[fragment.index] = [record.alt_text for record in records]
    expected = [f"text {n}" for n in range(24)]
    assert texts == {0: expected[:7], 2: expected[14:21], 3: expected[21:]}
    resumed = [record.alt_text for _, records in read_stream(fragments[2:]) for record in records]
    assert resumed == expected[14:]


MEASURE = """
import resource, sys
from components.corpus.readers import open_corpus, read_stream
corpus = open_corpus(sys.argv[1], fragment_bytes=int(sys.argv[2]))
for _, records in read_stream(corpus.streams[0][:1]):
    next(iter(records))  # what the libraries themselves take
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for fragments in corpus.streams:
    for _, records in read_stream(fragments):
        held = list(records)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_follows_the_fragment_not_the_row_group(tmp_path):
    """A row group of 160 MB, read in fragments of 8 MiB, takes less than half of it."""
    uri = write_parquet(tmp_path, 800, 800)
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", MEASURE, uri, str(8 * MIB)]
    grown_kib = int(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)
    assert grown_kib * 1024 < 800 * IMAGE_BYTES / 2


def test_fragments_travel_as_json_with_their_stream_and_offset(tmp_path):
    for fragment in open_corpus(write_tar(tmp_path, 6, "w"), rows_per_fragment=2).fragments:
        assert fragment.from_dict(json.loads(json.dumps(fragment.to_dict()))) == fragment


def _everything(corpus: Corpus) -> Iterable:
    return (record for fragment in corpus.fragments for record in read_fragment(fragment))
