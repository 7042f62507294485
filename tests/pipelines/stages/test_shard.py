"""The shard stage: every captioned record ends in one tar or as a reject, and the bytes never vary."""

import hashlib
import io
import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError
from upath import UPath

from components.captioning.kinds import CAPTION_KINDS
from components.corpus.schemas import captioned_schema, record_key
from components.shards.blend import Blend
from components.shards.index import load_index
from components.shards.loader import ShardLoader
from components.shards.plan import is_held_out
from components.shards.reader import read_split, read_tar
from pipelines.errors import StageFailed
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.stage import Input, run_stage
from pipelines.stages.shard import STAGE, ShardConfig
from pipelines.store.receipts import Counts, FileEntry, Receipt, content_digest, sha256_file
from tests.forks import KILLED, imported_once, status_at
from tests.pipelines.one_by_one import OneByOne

imported_once("pipelines.stages.shard")

CONFIG = ShardConfig(samples_per_tar=20, tars_per_group=2, holdout_fraction=0.1)
FAULTS = ("shard.part.before_rename", "shard.part.before_receipt", "shard.receipt.before_rename")


def run(home: Path, recaption: Input, config: ShardConfig = CONFIG, engine: Engine | None = None) -> Receipt:
    return run_stage(
        STAGE,
        config,
        {"recaption": (recaption,)},
        home=home,
        snapshot="default",
        engine=engine or OneByOne(),
        progress=Progress(quiet=True),
    )


def output(home: Path, receipt: Receipt) -> Path:
    return home / "shard" / receipt.fingerprint


def contents(home: Path, receipt: Receipt) -> dict[str, bytes]:
    return {entry.path: (output(home, receipt) / entry.path).read_bytes() for entry in receipt.files}


def captioned(folder: Path, parts: int = 7, rows: int = 15, **changes: Any) -> Input:
    """An output as recaption leaves it; `changes` overwrite columns of the first row."""
    entries = []
    for part in range(parts):
        table = [row(f"{part}-{i}") for i in range(rows)]
        if part == 0 and rows:
            table[0].update(changes)
        path = folder / f"captioned/part-{part:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(table, schema=captioned_schema(CAPTION_KINDS)), path)
        name = path.relative_to(folder).as_posix()
        entries.append(FileEntry(path=name, bytes=path.stat().st_size, sha256=sha256_file(path)))
    receipt = Receipt(
        stage="recaption",
        version=1,
        snapshot="default",
        fingerprint="f" * 16,
        config={},
        inputs={},
        input_fingerprints={},
        libraries={},
        counts=Counts(),
        reasons={},
        info={},
        files=tuple(entries),
        digest=content_digest(entries),
        seconds=0,
        peak_rss_mb=0,
        finished_at="",
    )
    return Input("recaption", str(folder), receipt.digest, receipt)


def row(name: str) -> dict[str, Any]:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, ("PNG", "JPEG", "WEBP")[seed % 3])
    image = stream.getvalue()
    return {
        "key": record_key(image, name),
        "image": image,
        "alt_text": f"alt of {name}" if name != "0-1" else None,  # dropped by the filter
        "url": None if seed % 5 == 0 else f"https://example.org/{name}",
        "width": 8,
        "height": 8,
        "sha256": hashlib.sha256(image).hexdigest(),
        "language": "en",
        "judge_score": 0.25,
        "caption_short": f"short of {name}",
        "caption_long": f"long of {name}, with a ü",
        "captioner": "captioner",
        "prompt_hash": "p",
        "score_short": 0.5,
        "score_long": float("nan"),
    }


def test_every_captioned_record_is_in_one_tar_with_all_that_is_known_of_it(tmp_path):
    receipt = run(tmp_path / "home", captioned(tmp_path / "in"))
    index = output(tmp_path / "home", receipt) / "index.json"
    expected = {}
    for part in range(7):
        for i in range(15):
            known = row(f"{part}-{i}")
            expected[known["key"]] = (known.pop("image"), {**known, "score_long": None})
    samples = [*read_split(index, "train"), *read_split(index, "holdout")]
    assert {sample.key: (sample.image, sample.meta) for sample in samples} == expected
    assert len(samples) == 105
    assert receipt.counts.as_dict() == {"in": 105, "kept": 105, "rejected": 0, "errored": 0}
    assert receipt.info == {
        "train": load_index(index).samples("train"),
        "holdout": 105 - receipt.info["train"],
    }
    assert all(is_held_out(sample.key, 0.1) for sample in read_split(index, "holdout"))
    assert not any(is_held_out(sample.key, 0.1) for sample in read_split(index, "train"))


def test_tars_mix_parts_and_lie_in_no_order_of_arrival(tmp_path):
    receipt = run(tmp_path / "home", captioned(tmp_path / "in"))
    for path in output(tmp_path / "home", receipt).glob("train-*.tar"):
        listed = [json.loads(m)["alt_text"] for m in path.read_bytes().split(b"\0") if m.startswith(b'{"alt')]
        listed = [alt for alt in listed if alt is not None]  # one was dropped
        assert len({alt.removeprefix("alt of ").partition("-")[0] for alt in listed}) >= 2
        assert listed != sorted(listed)


def test_any_number_of_workers_writes_the_same_bytes(tmp_path):
    recaption = captioned(tmp_path / "in")
    one = run(tmp_path / "one", recaption)
    backwards = run(tmp_path / "backwards", recaption, engine=OneByOne(backwards=True))
    with Engine(workers=2) as engine:
        with_ray = run(tmp_path / "ray", recaption, engine=engine)
    assert one.digest == backwards.digest == with_ray.digest
    assert contents(tmp_path / "one", one) == contents(tmp_path / "ray", with_ray)


@pytest.mark.parametrize("point", FAULTS)
def test_a_stage_killed_anywhere_is_finished_by_the_same_command(tmp_path, point):
    recaption = captioned(tmp_path / "in")
    whole = run(tmp_path / "whole", recaption)
    home = tmp_path / "killed"
    for k in (1, 3) if point == FAULTS[0] else (1,):
        assert status_at(f"{point}:{k}", run, home, recaption) == KILLED
    finished = {path: path.stat().st_mtime_ns for path in home.rglob("parts/*.json")}
    resumed = run(home, recaption)
    assert contents(home, resumed) == contents(tmp_path / "whole", whole)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # nothing was done twice
    assert not list(home.rglob("*.tmp-*"))


def test_what_cannot_be_laid_in_a_tar_is_a_reject_with_a_reason(tmp_path):
    receipt = run(tmp_path / "home", captioned(tmp_path / "in", image=b"GIF89a"))
    assert receipt.counts.as_dict() == {"in": 105, "kept": 104, "rejected": 1, "errored": 0}
    assert receipt.reasons == {"image_format": 1}
    (path,) = output(tmp_path / "home", receipt).glob("rejects/*.parquet")
    (reject,) = pq.read_table(path).to_pylist()
    assert (reject["stage"], reject["reason"], reject["alt_text"]) == ("shard", "image_format", "alt of 0-0")


def test_the_loader_serves_the_stage_s_output(tmp_path):
    receipt = run(tmp_path / "home", captioned(tmp_path / "in"))
    index = output(tmp_path / "home", receipt) / "index.json"
    loader = ShardLoader([index], batch_size=8, image_size=8, seed=0, blend=Blend())
    assert loader.samples == receipt.info["train"]
    (batch,) = islice(loader.batches(), 1)
    assert batch.images.shape == (8, 8, 8, 3)
    assert all(
        caption.startswith(f"{kind} of ") for caption, kind in zip(batch.captions, batch.kinds, strict=True)
    )


def test_a_holdout_that_would_be_empty_is_one_line(tmp_path):
    with pytest.raises(StageFailed, match=r"the holdout split is empty \(1 captioned records") as caught:
        run(
            tmp_path / "home",
            captioned(tmp_path / "in", parts=1, rows=1),
            ShardConfig(holdout_fraction=0.001),
        )
    assert "\n" not in str(caught.value)
    with pytest.raises(StageFailed, match=r"the train split is empty \(0 captioned records"):
        run(tmp_path / "home", captioned(tmp_path / "none", parts=1, rows=0))


def test_a_column_that_is_not_the_contract_s_is_named_before_anything_is_written(tmp_path):
    recaption = captioned(tmp_path / "in")
    path = tmp_path / "in/captioned/part-00003.parquet"
    pq.write_table(pq.read_table(path).drop_columns("caption_long"), path)
    with pytest.raises(ValueError, match=r"part-00003\.parquet: column 'caption_long' \(string\) is missing"):
        run(tmp_path / "home", recaption)
    assert not list(tmp_path.rglob("*.tar"))


SHAPES = [(8, 8), (60, 40), (40, 60), (300, 100), (90, 100)]  # (width, height), as the filter measured them


def of_many_shapes(folder: Path, parts: int = 7) -> Input:
    """As `captioned`, with other widths and heights in the columns, by the key."""
    recaption = captioned(folder, parts)
    for path in folder.glob("captioned/*.parquet"):
        rows = pq.read_table(path).to_pylist()
        for record in rows:
            record["width"], record["height"] = SHAPES[int(record["key"], 16) % len(SHAPES)]
        pq.write_table(pa.Table.from_pylist(rows, schema=captioned_schema(CAPTION_KINDS)), path)
    return recaption


def test_each_tar_holds_records_of_one_bucket_and_the_index_names_it(tmp_path):
    buckets = ["32x32", "40x24", "24x40"]
    config = ShardConfig(**{**CONFIG.model_dump(), "buckets": buckets})
    recaption = of_many_shapes(tmp_path / "in")
    receipt = run(tmp_path / "home", recaption, config)
    folder = output(tmp_path / "home", receipt)
    index = load_index(folder / "index.json")
    expected = {
        (8, 8): "32x32",
        (60, 40): "40x24",
        (40, 60): "24x40",
        (300, 100): "40x24",
        (90, 100): "32x32",
    }
    placed = {
        sample.key: str(shard.bucket)
        for shard in index.shards
        for sample in read_tar(UPath(folder / shard.name), shard)
    }
    samples = [*read_split(folder / "index.json", "train"), *read_split(folder / "index.json", "holdout")]
    assert placed == {s.key: expected[s.meta["width"], s.meta["height"]] for s in samples}
    assert len(placed) == 105
    counts = {bucket: list(placed.values()).count(bucket) for bucket in buckets}
    assert receipt.info["buckets"] == counts and all(counts.values())
    assert sorted({shard.name for shard in index.shards}) == sorted(shard.name for shard in index.shards)
    backwards = run(tmp_path / "backwards", recaption, config, OneByOne(backwards=True))
    assert backwards.digest == receipt.digest


def test_one_square_bucket_gives_the_tars_that_no_bucket_gives_byte_for_byte(tmp_path):
    recaption = of_many_shapes(tmp_path / "in")
    without = run(tmp_path / "without", recaption)
    config = ShardConfig(**{**CONFIG.model_dump(), "buckets": ["32x32"]})
    square = run(tmp_path / "square", recaption, config)
    assert square.fingerprint != without.fingerprint
    one, other = contents(tmp_path / "without", without), contents(tmp_path / "square", square)
    listed, named = json.loads(one.pop("index.json")), json.loads(other.pop("index.json"))
    assert one == other
    assert {shard.pop("bucket") for shard in named["shards"]} == {"32x32"}
    assert listed == named  # and without buckets the index does not speak of them


def test_the_config_without_buckets_is_what_it_was():
    assert "buckets" not in ShardConfig().model_dump()
    with pytest.raises(ValidationError, match="a size is named twice"):
        ShardConfig(buckets=["32x32", "32x32"])
    with pytest.raises(ValidationError, match="size '32' is none; write WIDTHxHEIGHT"):
        ShardConfig(buckets=["32"])
