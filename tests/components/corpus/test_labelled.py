"""The labelled set: what is read, skipped and kept apart, and the orders in which it is learned."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.corpus.labelled import draw_batches, read_labelled
from components.corpus.schemas import LABELLED
from components.toyworld.scene import Scene
from components.toyworld.web import write_toy_web
from tests.caption_judgement import is_true


def png(colour: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (8, 8), (colour, 0, 0) if mode == "RGB" else (colour, 0, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, rows: list[dict]) -> str:
    pq.write_table(pa.Table.from_pylist(rows, schema=LABELLED), path)
    return str(path)


def row(image: bytes | None, short: str | None = "a square", long: str | None = "a red square") -> dict:
    return {"image": image, "caption_short": short, "caption_long": long}


def test_a_bad_record_is_skipped_and_counted(tmp_path):
    bad = [row(None), row(b"no image"), row(png(1), short=None), row(png(2), long="  "), row(png(3)[:-20])]
    labelled = read_labelled(write(tmp_path / "l.parquet", [row(png(9)), *bad]), 0.0)
    assert [record.image for record in labelled.train] == [png(9)]
    assert labelled.skipped == {"caption_empty": 2, "image_broken": 2, "image_missing": 1}
    assert labelled.records == 6


def test_a_toy_webs_truth_is_read_with_its_records_and_missed_nowhere_else(tmp_path):
    toy = write_toy_web(tmp_path, records=1, seed=0, labelled=3).labelled
    for record in read_labelled(str(toy), 0.0).train:
        assert is_true(record.caption_long, Scene.from_dict(json.loads(record.scene)))
    (plain,) = read_labelled(write(tmp_path / "l.parquet", [row(png(9))]), 0.0).train
    assert plain.scene is None


def test_a_transparent_image_is_seen_on_white(tmp_path):
    labelled = read_labelled(write(tmp_path / "l.parquet", [row(png(9, "RGBA"))]), 0.0)
    assert labelled.train[0].open().getpixel((0, 0)) == (255, 255, 255)


def test_copies_of_an_image_are_on_one_side(tmp_path):
    rows = [row(png(n % 50), short=f"square {n}") for n in range(150)]
    labelled = read_labelled(write(tmp_path / "l.parquet", rows), 0.3)
    assert not {r.image for r in labelled.train} & {r.image for r in labelled.held_out}
    assert len(labelled.train) + len(labelled.held_out) == 150
    assert 0.1 < len(labelled.held_out) / 150 < 0.5


def test_a_wrong_file_is_told_in_one_line(tmp_path):
    path = tmp_path / "l.parquet"
    path.write_text("no parquet")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        read_labelled(str(path), 0.0)
    pq.write_table(pa.table({"image": pa.array([b""], pa.binary()), "caption_short": ["a"]}), path)
    with pytest.raises(ValueError, match="column 'caption_long'"):
        read_labelled(str(path), 0.0)
    with pytest.raises(ValueError, match="no record can be used"):
        read_labelled(write(path, [row(None)]), 0.0)


def test_the_emoji_set_is_read(shared_data):
    labelled = read_labelled(str(shared_data / "emoji" / "labelled.parquet"), 0.1)
    assert labelled.records == 900
    assert not labelled.skipped


def first(number: int, **settings) -> list[list[int]]:
    batches = draw_batches(**{"count": 20, "batch_size": 4, "images_seen": 0, "seed": 0} | settings)
    return [next(batches) for _ in range(number)]


def test_every_epoch_sees_every_row_once():
    rows = [r for batch in first(64, batch_size=5) for r in batch]
    for epoch in range(16):
        assert sorted(rows[epoch * 20 : epoch * 20 + 20]) == list(range(20))


def test_orders_differ_from_epoch_to_epoch_and_from_seed_to_seed():
    assert first(5) != first(10)[5:]
    assert first(5) != first(5, seed=1)


def test_a_resumed_run_sees_the_batches_it_would_have_seen():
    whole = first(50)
    for batch in range(50):
        assert first(1, images_seen=batch * 4) == [whole[batch]]
