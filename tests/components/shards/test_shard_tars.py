"""The tars: same samples, same bytes; what is written is read back; nothing else is read."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shards.index import Shard
from components.shards.reader import parse_tar, read_split, read_tar
from components.shards.writer import Sample, image_extension, write_tar

JSON_SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_infinity=False)
SAMPLES = st.lists(
    st.builds(
        Sample,
        key=st.text("0123456789abcdef", min_size=1, max_size=64),
        image=st.binary(max_size=2000),
        extension=st.sampled_from(["jpg", "png", "webp"]),
        meta=st.dictionaries(st.text(), JSON_SCALARS, max_size=5),
    ),
    unique_by=lambda sample: sample.key,
    max_size=6,
)
TWO = (
    Sample("0a1b", b"\xff\xd8\xff bytes", "jpg", {"caption_short": "a café", "score": float("nan")}),
    Sample("ff00", b"RIFFxxxxWEBP" + bytes(600), "webp", {"width": 64, "alt_text": None}),
)


def tar_of(samples: Iterable[Sample]) -> bytes:
    stream = io.BytesIO()
    write_tar(stream, samples)
    return stream.getvalue()


def test_the_bytes_of_a_tar_are_known_for_ever():
    """A change here changes every corpus's digest: raise the shard stage's version with it."""
    assert hashlib.sha256(tar_of(TWO)).hexdigest() == (
        "6671c184cb98756980b5efce32636758af9a1ff4c12ca022de677b9c12244505"
    )


@settings(max_examples=100, deadline=None)
@given(SAMPLES)
def test_what_is_written_is_read_back(samples):
    read = parse_tar(tar_of(samples), "tar")
    for actual, sample in zip(read, samples, strict=True):
        assert (actual.key, actual.image, actual.extension) == (
            sample.key,
            sample.image,
            sample.extension,
        )
        nan_is_null = {k: None if v != v else v for k, v in sample.meta.items()}  # noqa: PLR0124 (only a NaN)
        assert actual.meta == nan_is_null


def test_plain_webdataset_reads_the_tars(make_shards):
    index = make_shards([4, 3])
    urls = sorted(str(path) for path in index.parent.glob("*.tar"))
    theirs = {}
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        (image,) = (sample[extension] for extension in ("jpg", "png", "webp") if extension in sample)
        theirs[sample["__key__"]] = (image, json.loads(sample["json"]))
    ours = {sample.key: (sample.image, sample.meta) for sample in read_split(index, "train")}
    assert theirs == ours
    assert len(ours) == 7


def test_the_standard_tar_program_would_list_it():
    with tarfile.open(fileobj=io.BytesIO(tar_of(TWO))) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == ["0a1b.jpg", "0a1b.json", "ff00.webp", "ff00.json"]
    assert {(member.mtime, member.mode, member.uname) for member in members} == {(0, 0o444, "straightshot")}


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Sample("../../x", b"", "jpg", {}), "is not lower-case hex"),
        (Sample("a.b", b"", "jpg", {}), "is not lower-case hex"),
        (Sample("0a1b", b"", "jpg", {}), "comes twice in one tar"),
        (Sample("0b", b"", "pickle", {}), "is none of"),
    ],
)
def test_what_a_loader_could_mistake_is_not_written(sample, message):
    with pytest.raises(ValueError, match=message):
        tar_of([*TWO, sample])


def test_a_tar_cut_anywhere_is_refused():
    whole = tar_of(TWO)
    shard = shard_of(whole)
    for cut in {*range(0, len(whole), 512), *range(1, len(whole), 331)}:
        with pytest.raises(ValueError, match="torn"):
            read_bytes(whole[:cut], shard)


def test_one_flipped_bit_is_refused():
    whole = tar_of(TWO)
    shard = shard_of(whole)
    for bit in range(0, 8 * len(whole), 397):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="damaged: its sha256 is not the index's"):
            read_bytes(bytes(damaged), shard)


def test_foreign_tars_are_refused_even_with_the_right_hash():
    def foreign(*members: tuple[str, bytes]) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for name, data in members:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return stream.getvalue()

    for tar, message in [
        (foreign(("ab.jpg", b"x"), ("cd.json", b"{}")), "not an image and its JSON"),
        (foreign(("ab.jpg", b"x")), "not an image and its JSON"),
        (foreign(("ab.pkl", b"x"), ("ab.json", b"{}")), "not an image and its JSON"),
        (foreign(("../ab.jpg", b"x"), ("../ab.json", b"{}")), "none that we write"),
        (foreign(("ab.jpg", b"x"), ("ab.json", b"[]")), "is not an object"),
        (foreign(*[("ab.jpg", b"x"), ("ab.json", b"{}")] * 2), "comes twice"),
        (b"not a tar at all" * 100, "not a tar of ours"),
    ]:
        with pytest.raises(ValueError, match=message):
            parse_tar(tar, "foreign.tar")


def with_hidden_member(**changes: object) -> bytes:
    """Two good samples, and between them a member that webdataset skips in silence."""
    good = ("ab.jpg", "ab.json"), ("cd.jpg", "cd.json")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in (*good[0], "ef.jpg", *good[1]):
            member = tarfile.TarInfo(name)
            member.size = 2
            if name == "ef.jpg":
                for field, value in {"size": 0, **changes}.items():
                    setattr(member, field, value)
            tar.addfile(member, io.BytesIO(b"{}"))
    return stream.getvalue()


@pytest.mark.parametrize(
    "changes",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.DIRTYPE},
        {"name": "__hidden__/ef.jpg"},
        {"name": "__hidden__"},
        {"name": "no_extension"},
        {"name": "a" * 150 + ".jpg"},
    ],
    ids=str,
)
def test_what_webdataset_skips_in_silence_is_refused(changes):
    with pytest.raises(ValueError, match=r"^foreign\.tar: .*(not a tar of ours|none that we write)"):
        parse_tar(with_hidden_member(**changes), "foreign.tar")


def test_a_compressed_tar_is_refused_before_it_is_opened():
    with pytest.raises(ValueError, match="does not begin with a tar header"):
        parse_tar(gzip.compress(tar_of(TWO)), "foreign.tar")


def test_nothing_but_the_json_is_decoded():
    """webdataset would unpickle a member by its extension; ours are bytes until the image is opened."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in (("ab.jpg", b"x"), ("ab.json", b"{}"), ("ab.pkl", b"cos\nsystem\n(S'false'\ntR.")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(ValueError, match="sample ab is not an image and its JSON"):
        parse_tar(stream.getvalue(), "foreign.tar")


def test_an_image_is_known_by_its_first_bytes():
    assert image_extension(b"\xff\xd8\xff\xe0") == "jpg"
    assert image_extension(b"\x89PNG\r\n\x1a\n...") == "png"
    assert image_extension(b"RIFF1234WEBPVP8 ") == "webp"
    assert image_extension(b"GIF89a") is None
    assert image_extension(b"") is None


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def shard_of(data: bytes) -> Shard:
    sha256 = hashlib.sha256(data).hexdigest()
    return Shard(name="a.tar", split="train", bytes=len(data), sha256=sha256, samples=2)


def read_bytes(data: bytes, shard: Shard) -> list[Sample]:
    from pathlib import Path

    Path("a.tar").write_bytes(data)
    return read_tar("a.tar", shard)
