"""A server's captions on their way: gates and heads, the shards, their card and Croissant metadata."""

import io
import json
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import save_file

from components.captioning.config import ServerConfig
from components.corpus.schemas import FILTERED, PROVENANCE, provenance_fields, record_key
from components.judge.heads import HeadConfig
from components.judge.judge import Judge
from pipelines.errors import ConfigError
from pipelines.execution.progress import Progress
from pipelines.execution.resources import Resources
from pipelines.records.dataset_card import write_card
from pipelines.stage import Input, Stage, StageConfig, Work, run_stage
from pipelines.stages.data.recaption_config import RecaptionConfig
from pipelines.stages.recaption import STAGE as RECAPTION
from pipelines.stages.shard import STAGE as SHARD
from pipelines.stages.shard import ShardConfig
from pipelines.store.receipts import Counts, PartReceipt, Receipt
from tests.pipelines.one_by_one import OneByOne
from tests.small_judge import save_judge
from tests.vision_server import COLOURS, colour_of, completion, running

KEY = "sk-secret-7f3a"
ROWS = 24
SORRY = "I'm sorry, I can't help with that."
REFUSED_ONCE, REFUSED = "green", "white"  # in its first attempt; in every one


class OnGpus(OneByOne):
    """A cluster with GPUs, as far as resources go: what workers asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.requested: list[Resources | None] = []

    def gpus(self) -> float:
        return 4.0

    def map_parts(self, *args: Any, resources: Resources | None = None, **settings: Any) -> list[PartReceipt]:
        self.requested.append(resources)
        return super().map_parts(*args, resources=resources, **settings)


def run(
    stage: Stage,
    home: Path,
    config: StageConfig,
    inputs: Any,
    *,
    force: bool = False,
    engine: OneByOne | None = None,
) -> Receipt:
    return run_stage(
        stage,
        config,
        inputs,
        home=home,
        snapshot="2026-11",
        engine=engine or OneByOne(),
        progress=Progress(quiet=True),
        force=force,
    )


def finished(name: str, home: Path, receipt: Receipt) -> dict[str, tuple[Input, ...]]:
    return {name: (Input(name, str(home / name / receipt.fingerprint), receipt.digest, receipt),)}


def record(n: int) -> dict[str, Any]:
    colour = np.array(list(COLOURS.values())[n % len(COLOURS)])
    noise = np.random.default_rng(n).integers(-4, 5, (24, 24, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    image = buffer.getvalue()
    return {
        "key": record_key(image, str(n)),
        "image": image,
        "alt_text": f"alt | <{n}>",
        "url": f"https://www.{'ab'[n % 2]}.example/{n}.png",
        "width": 24,
        "height": 24,
        "sha256": f"{n:064x}",
        "phash": "0" * 16,
        "language": "en" if n % 3 else "de",
        "judge_score": 0.5,
        "license": "CC-BY-4.0" if n % 2 else None,
        "source": "crawl-1",
    }


def write_filtered(work: Work) -> list[PartReceipt]:
    """A filter that keeps the records, from a corpus that knows licences."""
    schema = pa.schema([*FILTERED, *provenance_fields(PROVENANCE)])
    table = pa.Table.from_pylist([record(n) for n in range(ROWS)], schema=schema)
    counts = Counts.model_validate({"in": ROWS + 1, "kept": ROWS, "rejected": 1})
    files = {"filtered/part-00000.parquet": partial(pq.write_table, table)}
    return [work.parts.write("part-00000", files, counts=counts, reasons={"alt_spam": 1})]


def write_annotators(work: Work) -> list[PartReceipt]:
    work.info.update(judge="fit", captioner="none", labelled=7)
    save_judge(work.out / "judge")
    return [work.adopt("judge")]


def answer(image: Image.Image, prompt: str, body: dict[str, Any]) -> dict[str, Any]:
    colour = colour_of(image)
    if colour == REFUSED or (colour == REFUSED_ONCE and "seed" not in body):
        return completion(SORRY)
    return completion(f"a {colour} wall. {prompt}")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Any]:
    """The stages up to the shards, with a server that is gone when this returns."""
    home = tmp_path_factory.mktemp("home")
    inputs = {}
    for name, write in (("filter", write_filtered), ("annotators", write_annotators)):
        receipt = run(Stage(name, 1, StageConfig, (), write), home, StageConfig(), {})
        inputs |= finished(name, home, receipt)
    judge = Judge.load(f"local-dir:{inputs['annotators'][0].path / 'judge'}")
    images = [Image.open(io.BytesIO(record(n)["image"])) for n in range(ROWS)]
    weight = np.arange(8, dtype=np.float32)
    scores = judge.image_features(images) @ weight
    lowest = np.sort(scores)
    save_file({"weight": weight}, home / "head.safetensors")
    head = HeadConfig(path=str(home / "head.safetensors"), at_least=float(lowest[:2].mean()))
    with running(answer) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTIONS_KEY", KEY)
        config = RecaptionConfig(
            server=ServerConfig(base_url=server.url, model="small", api_key_variable="CAPTIONS_KEY"),
            heads={"aesthetic": head},
            kinds={"short": {"prompt": "short@2", "hint": "hint@1"}},
            retries=1,
        )
        engine = OnGpus()
        receipt = run(RECAPTION, home, config, inputs, engine=engine)
        assert server.keys == {f"Bearer {KEY}"}
    recaption = finished("recaption", home, receipt)
    shards = ShardConfig(samples_per_tar=8, tars_per_group=1, holdout_fraction=0.3)
    shard = run(SHARD, home, shards, recaption)
    return {
        "home": home,
        "inputs": inputs,
        "config": config,
        "requested": engine.requested,
        "recaption": recaption["recaption"][0],
        "shard": finished("shard", home, shard)["shard"][0],
        "scores": dict(zip((record(n)["key"] for n in range(ROWS)), scores, strict=True)),
    }


def rows_of(recaption: Input) -> dict[str, dict[str, Any]]:
    table = pa.concat_tables([pq.read_table(path) for path in recaption.files("captioned/")])
    return {row["key"]: row for row in table.to_pylist()}


def test_captions_are_the_servers_gates_and_heads_have_their_reasons(made):
    rows, receipt = rows_of(made["recaption"]), made["recaption"].receipt
    lowest = min(made["scores"], key=made["scores"].get)
    for n in range(ROWS):
        colour, row = list(COLOURS)[n % len(COLOURS)], rows.get(record(n)["key"])
        kept = colour != REFUSED and record(n)["key"] != lowest
        assert (row is not None) == kept
        if row is not None:
            assert row["caption_short"].startswith(f"a {colour} wall. Write one short sentence")
            assert f'"alt | <{n}>"' in row["caption_short"], "the alt text was offered as a hint"
            assert row["caption_long"] == f"a {colour} wall. Describe the image in detail."
            assert row["captioner"] == "small"
            assert row["head_aesthetic"] == pytest.approx(made["scores"][row["key"]], abs=1e-5)
    assert receipt.counts.in_ == ROWS and receipt.reasons["aesthetic"] == 1
    assert receipt.counts.rejected == sum(receipt.reasons.values()) == receipt.reasons["caption_refused"] + 1
    assert receipt.info["retried"] == {
        "caption_refused": receipt.info["rescued"] + receipt.reasons["caption_refused"]
    }
    assert receipt.info["rescued"] == sum(colour_of(_image(row)) == REFUSED_ONCE for row in rows.values())


def _image(row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(row["image"])).convert("RGB")


def test_made_again_without_the_server_it_is_the_same_and_a_moved_server_changes_nothing(made):
    moved = made["config"].server.model_copy(update={"base_url": "http://127.0.0.1:9/v1", "concurrency": 3})
    config = made["config"].model_copy(update={"server": moved})
    again = run(RECAPTION, made["home"], config, made["inputs"], force=True)
    assert again.fingerprint == made["recaption"].receipt.fingerprint
    assert again.digest == made["recaption"].receipt.digest
    assert "requests" not in again.info, "every answer was there"


def test_a_servers_workers_take_the_judges_share_of_a_gpu_and_no_captioners(made):
    (requested,) = made["requested"]
    assert (requested.gpus, requested.setting) == (0.25, "recaption.judge.gpus_per_worker")


def test_the_key_is_in_no_file(made):
    files = [path for path in made["home"].rglob("*") if path.is_file()]
    assert any("cache/answers" in path.as_posix() for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_licence_source_and_heads_go_on_into_the_tars(made):
    rows, samples = rows_of(made["recaption"]), {}
    for path in made["shard"].files("train-") + made["shard"].files("holdout-"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    samples[member.name.partition(".")[0]] = json.load(tar.extractfile(member))
    assert samples.keys() == rows.keys()
    for key, sample in samples.items():
        row = rows[key]
        assert (sample["license"], sample["source"]) == (row["license"], "crawl-1")
        assert sample["head_aesthetic"] == pytest.approx(row["head_aesthetic"])


@pytest.fixture(scope="module")
def card(made, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("card")
    write_card(made["home"], out, name="Walls", snapshot=None, terms="https://a.example/terms", url=None)
    return out


def test_the_card_says_what_the_receipts_and_records_say(made, card):
    text, rows = (card / "README.md").read_text(), rows_of(made["recaption"]).values()
    licensed = sum(row["license"] is not None for row in rows)
    for said in (
        f"{len(rows):,} images with captions",
        "Captioner: small, asked over a server.",
        "fitted on 7 labelled images",
        f"**filter**: {ROWS + 1} records in, {ROWS} kept.",
        "| shop or search-engine text | `alt_spam` | 1 |",
        f"**recaption**: {ROWS} records in, {len(rows)} kept.",
        f"| CC-BY-4.0 | {licensed} |",
        f"| not said by the corpus | {len(rows) - licensed} |",
        f"| a.example | {sum('www.a.' in row['url'] for row in rows)} |",
        f"| de | {sum(row['language'] == 'de' for row in rows)} |",
        "short@2: Write one short sentence",
        "No model looked for what is not safe for work",
        "The captioner saw the alt texts",
    ):
        assert said in text, said
    assert str(made["home"]) not in text + (card / "croissant.json").read_text()


def test_the_same_outputs_give_the_same_card(made, card, tmp_path):
    write_card(
        made["home"], tmp_path, name="Walls", snapshot="2026-11", terms="https://a.example/terms", url=None
    )
    for path in card.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(ConfigError, match="no shards of snapshot 'other'"):
        write_card(made["home"], tmp_path, name="Walls", snapshot="other", terms="t", url=None)


def test_mlcroissant_validates_the_metadata_and_reads_the_images_with_it(made, card, tmp_path, monkeypatch):
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path / "cache"))
    from mlcroissant import Dataset

    folder = tmp_path / "published"
    folder.mkdir()
    for path in (*made["shard"].files("train-"), *made["shard"].files("holdout-"), card / "croissant.json"):
        if path.suffix != ".parquet":
            (folder / path.name).write_bytes(path.read_bytes())
    dataset = Dataset(str(folder / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    rows, read = rows_of(made["recaption"]), {}
    for name in ("train-pictures", "holdout-pictures"):
        for sample in dataset.records(name):
            read[_text(sample[f"{name}/key"])] = sample[f"{name}/image"]
    assert {key: colour_of(image) for key, image in read.items()} == {
        key: colour_of(_image(row)) for key, row in rows.items()
    }
    (train,) = [found for found in dataset.metadata.record_sets if found.uuid == "train"]
    assert {f.name for f in train.fields} == set(
        pq.read_schema(made["recaption"].files("captioned/")[0]).names
    ) - {"image"}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value
