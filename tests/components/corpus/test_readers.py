"""The readers: every kind of corpus gives its records in order, and every fault one line that names it."""

import io
import json
import pickle
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from components.corpus.readers import Fragment, RawRecord, open_corpus, read_fragment
from components.corpus.side_files import DAMAGED_JSON

RECORDS = [
    RawRecord(b"one", "a red circle", "u/1"),
    RawRecord(None, "no image", "u/2"),
    RawRecord(b"three", None, "u/3"),
    RawRecord(b"four", "ein Kreis – 円", None),
    RawRecord(b"five", "", "u/5"),
]


def table(records=RECORDS, **types) -> pa.Table:
    return pa.table(
        {
            name: pa.array([getattr(r, name) for r in records], types.get(name, default))
            for name, default in (("image", pa.binary()), ("alt_text", pa.string()), ("url", pa.string()))
        }
    )


def everything(uri, rows_per_fragment=512):
    corpus = open_corpus(uri, rows_per_fragment)
    assert [f.index for f in corpus.fragments] == list(range(len(corpus.fragments)))
    assert all(f.rows <= rows_per_fragment for f in corpus.fragments)
    records = [record for fragment in corpus.fragments for record in read_fragment(fragment)]
    assert len(records) == corpus.rows
    return records


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


SAMPLES = [
    ("00000.jpg", b"one"),
    ("00000.txt", b"a red circle"),
    ("00000.json", json.dumps({"caption": "other", "url": "u/1"}).encode()),
    ("00001.webp", b"two"),
    ("00001.json", json.dumps({"caption": "from json"}).encode()),
    ("00002.txt", b"no image \xff"),
    ("00003.png", b"four"),
    ("00003.json", b"{torn"),
]
TAR_RECORDS = [
    RawRecord(b"one", "a red circle", "u/1"),
    RawRecord(b"two", "from json", "a.tar/00001"),
    RawRecord(None, "no image \ufffd", "a.tar/00002"),
    RawRecord(b"four", None, "a.tar/00003", damaged=DAMAGED_JSON),
]


@pytest.mark.parametrize("row_group", [1, 2, 5])
@pytest.mark.parametrize("rows_per_fragment", [1, 2, 3, 512])
def test_parquet_gives_the_rows_in_order_however_they_are_cut(tmp_path, row_group, rows_per_fragment):
    pq.write_table(table(), tmp_path / "b.parquet", row_group_size=row_group)
    pq.write_table(table(RECORDS[:2]), tmp_path / "a.parquet")
    (tmp_path / "_SUCCESS").touch()
    expected = RECORDS[:2] + RECORDS
    assert everything(f"parquet:{tmp_path}", rows_per_fragment) == expected
    assert everything(f"parquet:{tmp_path}/b.parquet", rows_per_fragment) == RECORDS
    assert everything(f"parquet:{tmp_path}/*.parquet", rows_per_fragment) == expected


def test_fragments_travel_as_json_and_pickles(tmp_path):
    (tmp_path / "x.png").write_bytes(b"x")
    (tmp_path / "captions.csv").write_text("file_name,alt_text\nx.png,a circle\n")
    (fragment,) = open_corpus(f"folder:{tmp_path}").fragments
    assert Fragment.from_dict(json.loads(json.dumps(fragment.to_dict()))) == fragment
    assert pickle.loads(pickle.dumps(fragment)) == fragment
    assert list(read_fragment(fragment)) == [RawRecord(b"x", "a circle", "x.png")]


def test_parquet_takes_wider_types_structs_of_bytes_and_missing_urls(tmp_path):
    wide = table(
        image=pa.large_binary(), alt_text=pa.large_string(), url=pa.dictionary(pa.int32(), pa.string())
    )
    pq.write_table(wide, tmp_path / "wide.parquet")
    assert everything(f"parquet:{tmp_path}/wide.parquet") == RECORDS
    structs = [None if r.image is None else {"bytes": r.image, "path": "p"} for r in RECORDS]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(
        pa.table({"image": pa.array(structs, kind), "alt_text": [r.alt_text for r in RECORDS]}),
        tmp_path / "struct.parquet",
    )
    assert everything(f"parquet:{tmp_path}/struct.parquet") == [
        RawRecord(r.image, r.alt_text, None) for r in RECORDS
    ]


def test_image_paths_are_read_beside_the_table_and_nowhere_else(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    corpus = tmp_path / "corpus"
    (corpus / "img").mkdir(parents=True)
    (corpus / "img" / "1.jpg").write_bytes(b"one")
    paths = ["img/1.jpg", "img/absent.jpg", "../secret", str(tmp_path / "secret"), None]
    pq.write_table(pa.table({"image_path": paths, "alt_text": list("abcde")}), corpus / "t.parquet")
    assert [r.image for r in everything(f"parquet:{corpus}")] == [b"one", None, None, None, None]
    before = open_corpus(f"parquet:{corpus}").digest()
    (corpus / "img" / "1.jpg").write_bytes(b"two")
    assert open_corpus(f"parquet:{corpus}").digest() != before


def test_a_text_that_is_not_utf8_spoils_only_itself(tmp_path):
    raw = pa.array([b"fine", b"broken \xff"], pa.binary())
    alt = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    pq.write_table(pa.table({"image": pa.array([b"1", b"2"]), "alt_text": alt}), tmp_path / "t.parquet")
    assert [r.alt_text for r in everything(f"parquet:{tmp_path}")] == ["fine", "broken \ufffd"]


def test_a_folder_pairs_images_with_text_files_and_tables(tmp_path):
    (tmp_path / "deep").mkdir()
    for name, data in {
        "a.jpg": b"a", "a.txt": b"text of a", "b.PNG": b"b", "deep/c.webp": b"c", "deep/c.txt": b"text of c",
        "notes.md": b"-", ".hidden.jpg": b"-",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
    plain = [
        RawRecord(b"a", "text of a", "a.jpg"),
        RawRecord(b"b", None, "b.PNG"),
        RawRecord(b"c", "text of c", "deep/c.webp"),
    ]
    assert everything(f"folder:{tmp_path}", 2) == plain
    lines = [
        {"file_name": "b.PNG", "caption": "table's b"},
        {"file_name": "b.PNG", "caption": "again"},
        {"file_name": "gone.jpg", "caption": "nowhere \u2028"},
        {"file_name": "a.jpg", "caption": None},
    ]
    text = "{torn\n" + "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (tmp_path / "captions.jsonl").write_text(text, "utf-8")
    assert everything(f"folder:{tmp_path}") == [
        RawRecord(b"a", None, "a.jpg"),
        RawRecord(b"b", "table's b", "b.PNG"),
        plain[2],
        RawRecord(None, "nowhere \u2028", "gone.jpg"),
    ]


def test_a_folder_has_imagefolders_metadata_and_jsons_beside_images(tmp_path):
    """As Hugging Face writes it, a table for each folder; and as img2dataset does, a JSON for each image."""
    (tmp_path / "cats").mkdir()
    (tmp_path / "dogs").mkdir()
    said = {"caption": "from json", "license": "CC0", "source": "a museum"}
    for name, data in {
        "a.jpg": b"a", "a.txt": b"text of a", "a.json": json.dumps(said).encode(),
        "b.jpg": b"b", "b.json": json.dumps(said).encode(),
        "c.jpg": b"c", "c.json": b'{"license": "CC0"', "d.jpg": b"d", "d.json": b"[1]", "e.json": b"{}",
        "cats/a.png": b"cat", "cats/a.json": b'{"license": "MIT", "source": "the json"}',
        "cats/metadata.jsonl": b'{"file_name": "a.png", "text": "a cat", "LICENSE": "CC-BY"}\n{"text": ""}',
        "dogs/b.png": b"dog", "dogs/b.txt": b"a dog",
        "dogs/metadata.csv": b"file_name,license_url\nb.png,https://x.example/by\nb.png,other\ngone.png,CC0\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
    assert everything(f"folder:{tmp_path}", 2) == [
        RawRecord(b"a", "text of a", "a.jpg", "CC0", "a museum"),
        RawRecord(b"b", "from json", "b.jpg", "CC0", "a museum"),
        RawRecord(b"c", None, "c.jpg", damaged=DAMAGED_JSON),
        RawRecord(b"cat", "a cat", "cats/a.png", "CC-BY", "the json"),
        RawRecord(b"d", None, "d.jpg", damaged=DAMAGED_JSON),
        RawRecord(b"dog", "a dog", "dogs/b.png", "https://x.example/by"),
        RawRecord(None, None, "dogs/gone.png", "CC0"),
    ]
    (tmp_path / "cats" / "metadata.jsonl").write_bytes(b"\xff\xfe no table at all")
    (tmp_path / "dogs" / "metadata.csv").write_bytes(b"no,columns\nof,ours\n")
    corpus = open_corpus(f"folder:{tmp_path}")
    records = [record for fragment in corpus.fragments for record in read_fragment(fragment)]
    assert [record for record in records if "/" in record.url] == [
        RawRecord(b"cat", None, "cats/a.png", "MIT", "the json"),
        RawRecord(b"dog", "a dog", "dogs/b.png"),
    ]
    assert corpus.skipped == {
        "line of the table that is no JSON object": 1,
        "metadata of a folder that is no table": 2,
        "file that is no image": 1,
    }


@pytest.mark.parametrize(
    ("fields", "license", "source"),
    [
        ({"license": "CC0", "source": "flickr"}, "CC0", "flickr"),
        ({"LICENSE": "?", "Licence": "CC-BY", "license_url": "https://x.example"}, "CC-BY", None),
        ({"LicenseShortName": " CC BY\n4.0 ", "provider": "wikimedia"}, "CC BY 4.0", "wikimedia"),
        ({"license": None, "license_url": "u", "source": ["no", "text"]}, "u", None),
        ({"license": 4, "source": True}, "4", None),
        ({"license": "", "source": "\ud800" + "s" * 1_000_000}, None, "\ufffd" + "s" * 299),
        ({"text": "all rights reserved", "sources": "no"}, None, None),
    ],
)
def test_licence_and_source_are_the_same_in_every_kind_of_corpus(tmp_path, fields, license, source):
    write_tar(tmp_path / "a.tar", [("1.jpg", b"x"), ("1.json", json.dumps(fields).encode())])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.jpg").write_bytes(b"x")
    (tmp_path / "folder" / "1.json").write_text(json.dumps(fields))
    texts = {n: v if isinstance(v, str) else None if v is None else str(v) for n, v in fields.items()}
    columns = {name: [None if v is None else v.replace("\ud800", "\ufffd")] for name, v in texts.items()}
    if all(isinstance(value, str | None) for value in fields.values()):
        pq.write_table(pa.table({"image": [b"x"], "alt_text": ["x"], **columns}), tmp_path / "a.parquet")
        (record,) = everything(f"parquet:{tmp_path}/a.parquet")
        assert (record.license, record.source) == (license, source)
    for uri in (f"webdataset:{tmp_path}/a.tar", f"folder:{tmp_path}/folder"):
        (record,) = everything(uri)
        assert (record.license, record.source, record.damaged) == (license, source, None)


@pytest.mark.parametrize("rows_per_fragment", [1, 3, 512])
def test_webdataset_reads_img2datasets_layout(tmp_path, rows_per_fragment):
    write_tar(tmp_path / "a.tar", SAMPLES)
    assert everything(f"webdataset:{tmp_path}", rows_per_fragment) == TAR_RECORDS
    assert everything(f"webdataset:{tmp_path}/a.tar", rows_per_fragment) == TAR_RECORDS


def test_a_key_that_comes_again_is_another_sample(tmp_path):
    write_tar(tmp_path / "a.tar", [("k.jpg", b"1"), ("k.jpg", b"2"), ("k.txt", b"two"), ("d/k.jpg", b"3")])
    assert everything(f"webdataset:{tmp_path}") == [
        RawRecord(b"1", None, "a.tar/k"),
        RawRecord(b"2", "two", "a.tar/k"),
        RawRecord(b"3", None, "a.tar/d/k"),
    ]


def test_a_tar_cut_anywhere_is_named_before_any_work(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, SAMPLES)
    whole = path.read_bytes()
    end = len(SAMPLES) * 1024  # a header and a block of data each; the end mark follows
    for length in range(1, end + 512, 256):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.tar is no whole tar: .*fetch it again or remove it"):
            open_corpus(f"webdataset:{path}")


def test_the_digest_is_of_the_content_not_of_the_place(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        pq.write_table(table(), tmp_path / name / "t.parquet")
    here, there = (open_corpus(f"parquet:{tmp_path}/{name}") for name in ("here", "there"))
    assert here.digest() == there.digest() == open_corpus(f"parquet:{tmp_path}/here", 2).digest()
    pq.write_table(table(RECORDS[1:]), tmp_path / "there" / "t.parquet")
    assert open_corpus(f"parquet:{tmp_path}/there").digest() != here.digest()


def test_a_remote_corpus_reads_the_same():
    folder = UPath("memory:///corpus-test")
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    pq.write_table(table(), buffer)
    (folder / "t.parquet").write_bytes(buffer.getvalue())
    assert everything("parquet:memory:///corpus-test", 2) == RECORDS
    assert everything("parquet:memory:///corpus-test/*.parquet") == RECORDS


def test_a_file_that_shrinks_after_planning_is_noticed(tmp_path):
    write_tar(tmp_path / "a.tar", SAMPLES)
    (fragment,) = open_corpus(f"webdataset:{tmp_path}").fragments
    write_tar(tmp_path / "a.tar", SAMPLES[:3])
    with pytest.raises(ValueError, match="changed while in use: 1 records where 4 were planned"):
        list(read_fragment(fragment))


def faults(tmp_path):
    """(uri, what its one line says)."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "garbage.parquet").write_bytes(b"not parquet at all")
    pq.write_table(table().drop_columns("alt_text"), tmp_path / "noalt.parquet")
    pq.write_table(table().drop_columns("image"), tmp_path / "noimage.parquet")
    pq.write_table(pa.table({"image": [b""], "alt_text": [1]}), tmp_path / "int.parquet")
    pq.write_table(pa.table({"image": ["x"], "alt_text": ["x"]}), tmp_path / "text.parquet")
    pq.write_table(table([]), tmp_path / "norows.parquet")
    for name, text in {"nocol": "name,title\na,b\n", "nofile": "caption\nb\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "captions.csv").write_text(text)
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "a.csv").touch()
    (tmp_path / "many" / "b.jsonl").touch()
    return {
        "web.parquet": "'web.parquet' is not understood; write parquet:PATH",
        "zip:x": "'zip:x' is not understood",
        f"parquet:{tmp_path}/absent": "absent does not exist; check the path",
        f"parquet:{tmp_path}/x*.parquet": "names no .parquet file",
        f"parquet:{tmp_path}/empty": "names no .parquet file",
        f"folder:{tmp_path}/empty": "holds no records",
        f"folder:{tmp_path}/absent": "does not exist or is no folder",
        f"webdataset:{tmp_path}/empty": "names no .tar",
        f"webdataset:{tmp_path}/garbage.parquet": "garbage.parquet is no whole tar",
        f"parquet:{tmp_path}/garbage.parquet": "garbage.parquet is no readable parquet file",
        f"parquet:{tmp_path}/noalt.parquet": "column 'alt_text' is missing; it has image, url",
        f"parquet:{tmp_path}/noimage.parquet": "column 'image' is missing; it has alt_text, url",
        f"parquet:{tmp_path}/int.parquet": "column 'alt_text' is int64, expected a string",
        f"parquet:{tmp_path}/text.parquet": "column 'image' is string, expected binary",
        f"parquet:{tmp_path}/norows.parquet": "holds no records",
        f"folder:{tmp_path}/nocol": "column 'file_name' is missing; it has name, title",
        f"folder:{tmp_path}/nofile": "column 'file_name' is missing; it has caption",
        f"folder:{tmp_path}/many": r"several caption tables (a.csv, b.jsonl)",
    }


def test_every_fault_is_one_line_that_names_it(tmp_path):
    for uri, says in faults(tmp_path).items():
        with pytest.raises(ValueError) as caught:
            open_corpus(uri)
        assert says in str(caught.value), (uri, str(caught.value))
        assert "\n" not in str(caught.value)


def test_real_corpora_are_read(shared_data):
    records = everything(f"parquet:{shared_data / 'emoji' / 'web.parquet'}")
    assert len(records) == 2561
    assert sum(record.alt_text is None for record in records) > 0
    assert all(record.url for record in records)
