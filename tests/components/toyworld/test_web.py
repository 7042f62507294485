"""The toy web: the same bytes from the same seed, and a truth that agrees with what lies in the files."""

import hashlib
import io
import json
from collections import Counter
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.corpus.schemas import CORPUS
from components.toyworld import web
from components.toyworld.held_out import is_held_out
from components.toyworld.parsing import parse
from components.toyworld.render import render
from components.toyworld.scene import Scene
from components.toyworld.scorer import detect
from components.toyworld.web import (
    GOOD_KINDS,
    JUNK_KINDS,
    LABELLED_TRUTH,
    TRUTH,
    draw_labelled,
    write_toy_web,
)
from tests.caption_judgement import is_complete, is_true


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy_web(tmp_path_factory.mktemp("toy"), records=1200, seed=3, labelled=60)


@pytest.fixture(scope="module")
def rows(toy):
    web = pq.read_table(toy.web).to_pylist()
    truth = pq.read_table(toy.truth).to_pylist()
    assert len(web) == len(truth) == 1200
    return [
        w | t | {"scene": Scene.from_dict(json.loads(t["scene"]))} for w, t in zip(web, truth, strict=True)
    ]


def decoded(data: bytes) -> Image.Image:
    """Over white, as the filter opens images."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        flat = Image.new("RGBA", image.size, "white")
        flat.alpha_composite(image.convert("RGBA"))
    return flat.convert("RGB")


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    def digests(folder, seed):
        write_toy_web(folder, records=120, seed=seed, labelled=10)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    first = digests(tmp_path / "a", 0)
    assert set(first) == {"web/part-00000.parquet", "labelled.parquet", "truth.parquet"}
    assert first == digests(tmp_path / "b", 0)
    assert first != digests(tmp_path / "c", 1)


def test_several_processes_draw_the_same_web(tmp_path, monkeypatch):
    drawn: list[int] = []
    few = partial(write_toy_web, records=100, seed=0, labelled=50, rows_per_file=40)
    alone = few(tmp_path / "alone")
    monkeypatch.setattr(web, "WORTH_A_PROCESS", 75)
    several = few(tmp_path / "several", advance=drawn.append)
    assert drawn == [40, 40, 20, 40, 10]
    files = [*sorted(alone.web.iterdir()), alone.labelled, alone.truth]
    assert len(files) == 5
    for file in files:
        assert file.read_bytes() == (several.web.parent / file.relative_to(tmp_path / "alone")).read_bytes()


def test_what_fails_in_one_of_several_processes_fails_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "WORTH_A_PROCESS", 1)
    (tmp_path / "web" / "part-00001.parquet" / "not empty").mkdir(parents=True)
    with pytest.raises(OSError, match=r"part-00001\.parquet"):
        write_toy_web(tmp_path, records=4, seed=0, labelled=1, rows_per_file=2)


def test_a_smaller_web_leaves_nothing_of_a_larger_one(tmp_path):
    write_toy_web(tmp_path, records=501, seed=0, labelled=1)
    assert len(list((tmp_path / "web").iterdir())) == 2
    toy = write_toy_web(tmp_path, records=20, seed=0, labelled=1)
    assert pq.read_table(toy.web).num_rows == pq.read_table(toy.truth).num_rows == 20


def test_files_have_the_contracts_schemas_and_few_rows_each(toy):
    parts = sorted(toy.web.iterdir())
    assert [part.name for part in parts] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert all(pq.read_schema(part).equals(CORPUS) for part in parts)
    assert [pq.read_metadata(part).num_rows for part in parts] == [500, 500, 200]
    assert pq.read_schema(toy.labelled).equals(LABELLED_TRUTH)
    assert pq.read_schema(toy.truth).equals(TRUTH)


def test_every_kind_of_record_is_there_in_its_share(rows):
    assert len({row["url"] for row in rows}) == len(rows)
    assert sum(GOOD_KINDS.values()) + sum(JUNK_KINDS.values()) == pytest.approx(1)
    counts = Counter(row["junk_reason"] for row in rows)
    assert set(counts) == {None, *JUNK_KINDS}
    assert 0.65 < counts[None] / len(rows) < 0.73
    assert all(row["junk"] == (row["junk_reason"] is not None) for row in rows)
    modes = Counter(
        (Image.open(io.BytesIO(row["image"])).format, Image.open(io.BytesIO(row["image"])).mode)
        for row in rows
        if row["junk_reason"] in (None, "filename", "boilerplate", "spam")
    )
    assert {("JPEG", "RGB"), ("WEBP", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P")} < set(modes)
    assert modes["JPEG", "L"] + modes["PNG", "L"] > 0


def test_good_images_show_their_scene(rows):
    """Read by the scorer from the decoded bytes, whatever the format."""
    good = [row for row in rows if row["junk_reason"] is None and row["alt_kind"] != "colourless"]
    right = 0
    for row in good[:300]:
        image = decoded(row["image"])
        assert 64 <= image.width == image.height <= 128
        detected, scene = detect(np.asarray(image)), row["scene"]
        looks = sorted((t.shape or "", t.colour) for t in detected.things)
        right += looks == sorted((t.shape, t.colour) for t in scene.things) and (
            detected.background == scene.background
        )
    assert right >= 297


def test_alpha_over_white_is_the_render(rows):
    checked = 0
    for row in rows:
        if row["junk_reason"] is None and row["image"][:4] == b"\x89PNG":
            image = decoded(row["image"])
            with Image.open(io.BytesIO(row["image"])) as opened:
                if opened.mode != "RGBA" or opened.getextrema()[3][0] == 255:
                    continue
            truth = np.asarray(render(row["scene"], image.width), int)
            assert np.abs(np.asarray(image, int) - truth).max() <= 3
            checked += 1
    assert checked > 3


def test_texts_that_parse_are_true_unless_they_are_mismatched(rows):
    parsed = Counter()
    for row in rows:
        text = (row["alt_text"] or "").replace("&amp;", "and").replace("\u00a0", " ")
        if (
            row["junk_reason"] in JUNK_KINDS
            and row["alt_kind"] in JUNK_KINDS
            and row["alt_kind"] != "mismatch"
        ):
            assert parse(text) is None, row
        elif parse(text) is not None:
            parsed[row["alt_kind"]] += 1
            assert is_true(text, row["scene"]) == (row["alt_kind"] != "mismatch"), row
    assert parsed["good"] > 150
    assert parsed["partial"] > 30
    assert parsed["mismatch"] > 5


def test_broken_images_do_not_decode_and_copies_follow_their_originals(rows):
    place = {row["url"]: i for i, row in enumerate(rows)}
    copies = 0
    for i, row in enumerate(rows):
        if row["junk_reason"] == "broken" and row["image"]:
            with pytest.raises((OSError, SyntaxError)):
                decoded(row["image"])
        if row["duplicate_of"] is not None:
            original = rows[place[row["duplicate_of"]]]
            copies += 1
            assert place[row["duplicate_of"]] < i
            assert not original["junk"]
            assert original["scene"] == row["scene"]
            assert (original["image"] == row["image"]) == (row["junk_reason"] == "duplicate")
    assert copies == sum(row["junk_reason"] in ("duplicate", "reencoded") for row in rows) > 30


def test_tiny_blank_and_banner_images_are_what_they_are_called(rows):
    for row in rows:
        if row["junk_reason"] == "tiny":
            assert max(decoded(row["image"]).size) <= 24
        if row["junk_reason"] == "blank":
            # WebP leaves a flat colour up to seven levels apart, over all backgrounds; a scene, a hundred.
            assert max(np.ptp(np.asarray(decoded(row["image"])), axis=(0, 1))) <= 7
        if row["junk_reason"] == "banner":
            assert decoded(row["image"]).size == (640, 64)


def test_the_labelled_set_is_true_complete_and_disjoint_from_the_web(toy, rows):
    labelled = pq.read_table(toy.labelled).to_pylist()
    assert len(labelled) == 60
    assert labelled == draw_labelled(3, range(60))
    assert not {row["image"] for row in labelled} & {row["image"] for row in rows}
    rendered = {row["scene"] for row in rows}
    for row in labelled:
        detected = detect(np.asarray(decoded(row["image"])))
        scene = Scene(detected.background, detected.things)
        assert scene not in rendered
        for caption in (row["caption_short"], row["caption_long"]):
            assert is_true(caption, scene), (caption, scene)
            assert is_complete(caption, scene)


def test_nothing_that_is_held_out_is_in_the_web(rows):
    assert not any(is_held_out(row["scene"]) for row in rows)
