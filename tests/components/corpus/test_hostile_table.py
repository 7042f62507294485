"""Whatever a crawl brings becomes a record or gets its reason: a table of images, texts and whole corpora."""

import csv
import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.corpus.fragments import RawRecord
from components.corpus.images import ImageRejected, ImageRules, open_image
from components.corpus.readers import Corpus, Fragment, open_corpus, read_fragment, read_stream
from components.corpus.schemas import FILTERED, Reason, record_key
from components.filtering.alt_text import AltTextRules
from components.filtering.examine import Rejected, examine
from tests.components.corpus.hostile_images import IMAGES, encoded, photo

TEXT = "a wooden chair beside a window with white curtains"
TEXTS = [
    (None, Reason.ALT_MISSING),
    ("", Reason.ALT_MISSING),
    ("\0\0\0", Reason.ALT_MISSING),
    ("\u200b\ufeff", Reason.ALT_MISSING),
    ("x" * 1_000_000, Reason.ALT_TOO_LONG),
    ("&amp;" * 200_000, Reason.ALT_TOO_LONG),
    ("chair " * 500, Reason.ALT_TOO_LONG),
    (TEXT, None),
    (f"{TEXT}\0", None),
    (f"\0{TEXT}\x1b[31m\x07", None),
    (f"{TEXT} \ufffd", None),
    (f"{TEXT} \ud800", None),
    (f"\udfff\udc80 {TEXT}", None),
    (f"\u202e{TEXT}\u202c", None),
    ("<script>alert(1)</script>" * 3, Reason.ALT_MARKUP),
]


def everything(uri: str, rows_per_fragment: int = 512) -> tuple[Corpus, list[RawRecord]]:
    corpus = open_corpus(uri, rows_per_fragment)
    assert len(corpus.digest()) == 64
    plan = [Fragment.from_dict(json.loads(json.dumps(part.to_dict()))) for part in corpus.fragments]
    return corpus, [record for fragment in plan for record in read_fragment(fragment)]


def assert_writable(records: list[RawRecord]) -> None:
    """Each has a key of its own, and its texts can be written as every stage writes them."""
    assert len({record_key(record.image or b"", record.url or "") for record in records}) == len(records)
    rows = [{"alt_text": record.alt_text, "url": record.url} for record in records]
    pa.Table.from_pylist(rows, schema=pa.schema([FILTERED.field("alt_text"), FILTERED.field("url")]))


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> str:
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return f"webdataset:{path}"


def test_every_image_gets_its_reason_or_goes_on():
    assert len(IMAGES) >= 100 and len({name for name, _, _ in IMAGES}) == len(IMAGES)
    for name, data, expected in IMAGES:
        reason = None
        try:
            assert open_image(data, ImageRules()).mode == "RGB"
        except ImageRejected as error:
            reason = error.rejection.reason
            assert "\n" not in error.rejection.detail
        assert reason == expected, name


def test_every_text_gets_its_reason_or_goes_on(tmp_path):
    image = encoded(photo(), "PNG")
    samples = [
        (f"{number}.{kind}", data)
        for number, (text, _) in enumerate(TEXTS)
        for kind, data in (("png", image), ("json", json.dumps({"caption": text, "url": text}).encode()))
    ]
    _, records = everything(write_tar(tmp_path / "a.tar", samples))
    assert_writable(records)
    for record, (_, expected) in zip(records, TEXTS, strict=True):
        examined = examine(record, "key", AltTextRules(), ImageRules())
        reason = examined.rejection.reason if isinstance(examined, Rejected) else None
        assert reason == expected, (record.alt_text or "")[:60]


def test_colours_are_those_that_the_profile_means():
    """A profile with red and blue exchanged exchanges them in any format; that of sRGB does not."""
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = srgb.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")
    translucent = photo(mode="RGBA")
    translucent.putalpha(128)
    for image, kind, options in (
        (photo(), "PNG", {}),
        (photo(), "JPEG", {}),
        (photo(), "WEBP", {"lossless": True}),
        (photo().quantize(64), "PNG", {}),
        (translucent, "PNG", {}),
    ):
        plain = open_image(encoded(image, kind, **options), ImageRules())
        red, green, blue = plain.split()
        shown = open_image(encoded(image, kind, icc_profile=exchanged, **options), ImageRules())
        assert shown.tobytes() == Image.merge("RGB", (blue, green, red)).tobytes()
        assert "icc_profile" not in shown.info
        assert open_image(encoded(image, kind, icc_profile=srgb, **options), ImageRules()) == plain


def test_what_a_decoder_was_silent_about_costs_good_jpegs_nothing():
    """The pixels are Pillow's own."""
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}):
        data = encoded(photo(81, 67), "JPEG", **options)
        assert open_image(data, ImageRules()).tobytes() == Image.open(io.BytesIO(data)).tobytes()


MEMBERS = [
    *(("1.5.jpg", b"a"), ("1.5.txt", b"A"), ("1.6.jpg", b"b"), ("1.6.txt", b"B")),
    *(("k.jpg", b"c"), ("k.features.npy", b"-"), ("k.mask.png", b"m"), ("k.txt", b"C")),
    *(("bad\udcff.jpg", b"d"), ("bad\udcfe.jpg", b"d"), ("x" * 100_000 + ".jfif", b"e")),
    *(("deep.jpg", b"f"), ("deep.json", b"[" * 100_000), ("README", b"-"), (".hidden.jpg", b"-")),
    *(("s.json", b'{"caption": "\\ud83d\\ude00 \\ud800", "url": "\\udc00\\u0000"}'), ("s.jpg", b"g")),
    ("text.txt", b"t" * 1_000_000),
]


@pytest.mark.parametrize("rows_per_fragment", [1, 2, 3, 512])
def test_a_tar_with_hostile_names_loses_no_record(tmp_path, rows_per_fragment):
    plain = everything(write_tar(tmp_path / "a.tar", MEMBERS), rows_per_fragment)
    (tmp_path / "gz").mkdir()
    compressed = everything(write_tar(tmp_path / "gz" / "a.tar", MEMBERS, "w:gz"), rows_per_fragment)
    assert compressed[1] == plain[1]
    assert_writable(plain[1])
    assert [(record.image, record.alt_text) for record in plain[1]] == [
        *((b"a", "A"), (b"b", "B"), (b"c", "C"), (b"m", None), (b"d", None), (b"d", None), (b"e", None)),
        *((b"f", None), (b"g", "\U0001f600 \ufffd"), (None, "t" * 1_000_000)),
    ]
    assert plain[0].skipped == {"file in a tar that is no part of a sample": 3}


def test_a_compressed_tar_is_read_once(tmp_path, monkeypatch):
    """However many samples and fragments it has: no more bytes are read than there are, and none twice."""
    members = [(f"{n:03}.{kind}", os.urandom(2000)) for n in range(60) for kind in ("jpg", "txt")]
    uri = write_tar(tmp_path / "a.tar.gz", members, "w:gz")
    (stream,) = open_corpus(uri, 7).streams
    assert len(stream) == 9
    read, opened = [0], io.FileIO.readinto

    def counted(self, buffer):
        size = opened(self, buffer)
        read[0] += size
        return size

    class CountedFile(io.FileIO):
        readinto = counted

        def readall(self):
            raise AssertionError("never the whole of it")

    from upath.implementations.local import PosixUPath

    monkeypatch.setattr(PosixUPath, "open", lambda self, mode: io.BufferedReader(CountedFile(str(self))))
    records = [record for _, its_records in read_stream(stream) for record in its_records]
    assert [record.image for record in records] == [data for name, data in members if name.endswith("jpg")]
    assert 0 < read[0] <= (tmp_path / "a.tar.gz").stat().st_size


def test_every_file_of_a_folder_is_a_record_or_counted(tmp_path):
    names = (b"bad\xff.jpg", b"bad\xff.txt", b"bad\xfe.jpg", b"_x.jpg", b"c.jfif", b"noext", b".hidden.jpg")
    for name in (*names, b"notes.md", b"orphan.txt", b"_x.txt"):
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    rows = [
        *({"file_name": "_x.jpg", "caption": "one"}, {"file_name": "_x.jpg", "caption": "two"}),
        *({"file_name": "noext", "caption": "n"}, {"file_name": "\udc00gone\0", "caption": "\ud800\0"}),
        *({"file_name": "g" * 1_000_000, "caption": "t" * 1_000_000}, 3, {"caption": "nowhere"}),
    ]
    (tmp_path / "t.jsonl").write_text("[" * 100_000 + "\n" + "\n".join(map(json.dumps, rows)))
    corpus, records = everything(f"folder:{tmp_path}", 2)
    assert_writable(records)
    assert [(record.image, (record.alt_text or "")[:9]) for record in records] == [
        *((b"_x.jpg", "one"), (b"bad\xfe.jpg", ""), (b"bad\xff.jpg", "bad\ufffd.txt"), (b"c.jfif", "")),
        *((b"noext", "n"), (None, "t" * 9), (None, "\ufffd\0")),
    ]
    assert corpus.skipped == {
        "hidden file": 1,
        "line of the table that is no JSON object": 2,
        "second caption of an image": 1,
        "row of the table without a file name": 1,
        "file that is no image": 1,
        "text without an image of its own": 2,
    }


def test_cells_of_a_table_may_have_any_size(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"x")
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "caption"], ["x.jpg", "y" * 1_000_000], ["\0", "nul\0"]])
    _, records = everything(f"folder:{tmp_path}")
    assert [record.alt_text for record in records] == ["y" * 1_000_000, "nul\0"]


def test_parquet_texts_of_any_bytes_spoil_only_themselves(tmp_path):
    values = [b"fine", b"broken \xff", b"nul\0", b"z" * 1_000_000]
    raw = pa.array(values, pa.binary())
    text = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    image = pa.StructArray.from_arrays([pa.array([b"1", b"2", None, b"4"]), text], ["bytes", "path"])
    url = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), text)
    pq.write_table(pa.table({"image": image, "alt_text": text, "url": url}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image_path": text, "alt_text": text}), tmp_path / "b.parquet")
    corpus, records = everything(f"parquet:{tmp_path}")
    readable = [value.decode("utf-8", "replace") for value in values]
    assert [record.alt_text for record in records] == readable * 2
    assert [record.image for record in records] == [b"1", b"2", None, b"4", *[None] * 4]
    assert_writable(records[:4])
    assert len(corpus.files) == 2
