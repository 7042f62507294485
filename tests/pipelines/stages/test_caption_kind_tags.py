"""A third kind of caption is one entry of a table: here `tags`, from the captioner to the loader."""

import io
import json
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.captioning import captioner as captioner_module
from components.captioning.kinds import CAPTION_KINDS, CaptionKind, caption_columns
from components.corpus.schemas import FILTERED, record_key
from components.judge import judge as judge_module
from components.shards.blend import Blend
from components.shards.index import INDEX_NAME
from components.shards.loader import ShardLoader
from components.shards.reader import read_split
from pipelines.execution.progress import Progress
from pipelines.stage import Input, Stage, StageConfig, Work, run_stage
from pipelines.stages.data.recaption_config import RecaptionConfig
from pipelines.stages.recaption import STAGE as RECAPTION
from pipelines.stages.shard import STAGE as SHARD
from pipelines.stages.shard import ShardConfig
from pipelines.store.receipts import Counts, PartReceipt, Receipt
from tests.pipelines.one_by_one import OneByOne

TAGS = CaptionKind("tags", "List what is in the image.", max_tokens=12)
ROWS = 40


class EchoCaptioner:
    """A captioner at the seam: it answers with the kind that it was asked for."""

    keyed_by, asked = "key", 0

    def caption(self, images: list[Image.Image], kind: CaptionKind, keys: list[str], **_: Any) -> list[str]:
        return [f"{kind.name} of {image.getpixel((0, 0))} in {kind.max_tokens} tokens" for image in images]


class EvenJudge:
    """A judge at the seam: every text fits as well as it is long."""

    def prepare(self, image: Image.Image) -> Image.Image:
        return image

    def image_features(self, images: list[Image.Image]) -> np.ndarray:
        return np.ones((len(images), 1), np.float32)

    def text_features(self, texts: list[str]) -> np.ndarray:
        return np.array([[len(text) / 1000] for text in texts], np.float32)


@pytest.fixture
def tags(monkeypatch) -> CaptionKind:
    """The one entry, and models that need no weights."""
    monkeypatch.setitem(CAPTION_KINDS, TAGS.name, TAGS)
    monkeypatch.setattr(captioner_module.Captioner, "load", lambda *_, **__: EchoCaptioner())
    monkeypatch.setattr(judge_module.Judge, "load", lambda *_, **__: EvenJudge())
    return TAGS


def run(stage: Stage, home: Path, config: StageConfig, inputs: dict[str, tuple[Input, ...]]) -> Receipt:
    return run_stage(
        stage,
        config,
        inputs,
        home=home,
        snapshot="default",
        engine=OneByOne(),
        progress=Progress(quiet=True),
    )


def finished(name: str, home: Path, receipt: Receipt) -> dict[str, tuple[Input, ...]]:
    return {name: (Input(name, str(home / name / receipt.fingerprint), receipt.digest, receipt),)}


def record(n: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (n, 0, 0)).save(buffer, "PNG")
    image = buffer.getvalue()
    return {
        "key": record_key(image, str(n)),
        "image": image,
        "alt_text": f"alt {n}",
        "url": None,
        "width": 8,
        "height": 8,
        "sha256": "0" * 64,
        "language": "en",
        "judge_score": 0.5,
    }


def write_filtered(work: Work) -> list[PartReceipt]:
    table = pa.Table.from_pylist([record(n) for n in range(ROWS)], schema=FILTERED)
    counts = Counts.model_validate({"in": ROWS, "kept": ROWS})
    files = {"filtered/part-00000.parquet": partial(pq.write_table, table)}
    return [work.parts.write("part-00000", files, counts=counts)]


def write_annotators(work: Work) -> list[PartReceipt]:
    return [work.parts.write("models", {"captioner/config.json": lambda path: path.write_text("{}")})]


@pytest.fixture
def captioned(tags: CaptionKind, tmp_path: Path) -> dict[str, tuple[Input, ...]]:
    filtered = run(Stage("filter", 1, StageConfig, (), write_filtered), tmp_path, StageConfig(), {})
    annotators = run(Stage("annotators", 1, StageConfig, (), write_annotators), tmp_path, StageConfig(), {})
    inputs = finished("filter", tmp_path, filtered) | finished("annotators", tmp_path, annotators)
    return finished("recaption", tmp_path, run(RECAPTION, tmp_path, RecaptionConfig(), inputs))


def test_the_captioner_is_asked_for_it_and_its_columns_are_written(captioned):
    (recaption,) = captioned["recaption"]
    table = pq.read_table(recaption.files("captioned/")[0])
    assert {"caption_tags", "score_tags"} <= set(table.schema.names)
    texts = {kind: table[column].to_pylist() for kind, column in caption_columns().items() if kind != "alt"}
    for kind, limit in (("short", 32), ("long", 96), ("tags", 12)):
        assert texts[kind] == [f"{kind} of ({n}, 0, 0) in {limit} tokens" for n in range(ROWS)]
    lengths = [np.float32(len(text) / 1000) for text in texts["tags"]]
    assert table["score_tags"].to_pylist() == pytest.approx(lengths)


def test_the_shards_carry_it_and_the_loader_blends_it(captioned, tmp_path):
    receipt = run(SHARD, tmp_path, ShardConfig(samples_per_tar=10, holdout_fraction=0.2), captioned)
    index = tmp_path / "shard" / receipt.fingerprint / INDEX_NAME
    samples = {sample.key: sample.meta for sample in read_split(index, "train")}
    assert all(meta["caption_tags"].startswith("tags of ") for meta in samples.values())
    assert all(meta["score_tags"] > 0 for meta in samples.values())

    blend = Blend(alt=0.0, short=0.25, long=0.25, tags=0.5)
    loader = ShardLoader([index], batch_size=8, image_size=8, seed=0, blend=blend)
    kinds: list[str] = []
    for batch in islice(loader.batches(), 50):
        kinds += batch.kinds
        for key, kind, caption in zip(batch.keys, batch.kinds, batch.captions, strict=True):
            assert caption == samples[key][f"caption_{kind}"]
    assert kinds.count("tags") / len(kinds) == pytest.approx(0.5, abs=0.1)  # 400 draws: 4 deviations
    assert set(kinds) == {"short", "long", "tags"}


def test_the_config_sets_its_prompt_and_limit_and_only_a_known_kind_has_any(tags):
    config = RecaptionConfig(kinds={"tags": {"max_tokens": 5}})
    assert config.caption_kinds[-1] == replace(tags, max_tokens=5)
    assert json.loads(config.model_dump_json())["kinds"]["tags"]["prompt"] == tags.prompt
    with pytest.raises(ValueError, match="no kind of caption is named 'title'; there are short, long, tags"):
        RecaptionConfig(kinds={"title": {"max_tokens": 5}})


def test_a_default_share_that_does_not_add_up_is_refused(monkeypatch):
    """An entry with a share takes it from the others, which the table must say."""
    monkeypatch.setitem(CAPTION_KINDS, "tags", replace(TAGS, share=0.2))
    with pytest.raises(ValueError, match=r"alt \+ short \+ long \+ tags must be 1, got 1\.2"):
        Blend()
    assert Blend(alt=0.05, short=0.3, long=0.45, tags=0.2).share("tags") == 0.2
