"""Lists of URLs as people have them: any number of files, of any columns, with anything in their cells."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import InputError
from components.fetching.url_list import group_path, open_url_list, split_by_host


def rows(uri: str, **columns: str) -> list[dict]:
    return [row for batch in open_url_list(uri, **columns).batches() for row in batch.to_pylist()]


def test_a_csv_file_is_read_whatever_is_in_it(tmp_path):
    path = tmp_path / "list.csv"
    text = (
        b"\xef\xbb\xbfurl,alt_text,source\nhttp://a/1," + b"x" * 300_000 + b',s\nhttp://a/2,"two\nlines"\n\n'
    )
    path.write_bytes(text + b"http://a/\xff3,caf\xe9,s,more\n,only a text,\nhttp://a/4\n")
    assert rows(f"urls:{path}") == [
        {"url": "http://a/1", "alt_text": "x" * 300_000, "source": "s"},
        {"url": "http://a/2", "alt_text": "two\nlines", "source": None},
        {"url": "http://a/\ufffd3", "alt_text": "caf\ufffd", "source": "s"},
        {"url": None, "alt_text": "only a text", "source": None},
        {"url": "http://a/4", "alt_text": None, "source": None},
    ]
    assert open_url_list(f"urls:{path}").rows() == 5


def test_columns_have_the_names_that_the_list_gives_them(tmp_path):
    table = pa.table({"URL": ["http://a/1"], "TEXT": ["one"], "similarity": pa.array([0.3], pa.float32())})
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("TEXT,URL\ntwo,http://a/2\n")
    found = rows(f"urls:{tmp_path}", url_column="URL", text_column="TEXT")
    assert [(row["url"], row["alt_text"]) for row in found] == [("http://a/1", "one"), ("http://a/2", "two")]
    assert found[0]["similarity"] == pytest.approx(0.3)
    assert found[1]["similarity"] is None
    with pytest.raises(InputError, match=r"no column 'url' of URLs; it has URL, TEXT, sim.*url_column"):
        open_url_list(f"urls:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.csv", b"", "is empty"),
        ("list.parquet", b"PAR1 not", "cannot be read"),
        ("list.txt", b"http://a/1", r"no \.parquet or \.csv"),
    ],
)
def test_what_is_no_list_is_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        open_url_list(f"urls:{tmp_path / name}")
    with pytest.raises(InputError, match="does not exist"):
        open_url_list(f"urls:{tmp_path}/missing.csv")


def test_a_host_is_in_one_group_and_no_row_is_lost(tmp_path):
    urls = [f"http://{host}/{n}" for n in range(50) for host in ("a.org", "B.org:8080", "b.org", "c.org", "")]
    pq.write_table(pa.table({"url": urls, "alt_text": urls}), tmp_path / "list.parquet", row_group_size=7)
    counts = split_by_host(open_url_list(f"urls:{tmp_path}/list.parquet"), tmp_path, 4)
    groups = [pq.read_table(group_path(tmp_path, number))["url"].to_pylist() for number in range(4)]
    assert [len(group) for group in groups] == counts
    assert sorted(url for group in groups for url in group) == sorted(urls)
    for host in ("a.org", "b.org", "c.org"):
        holding = [group for group in groups if any(f"//{host}" in url.lower() for url in group)]
        assert len(holding) == 1
    assert all([url for url in urls if url in set(group)] == group for group in groups)  # in the list's order
