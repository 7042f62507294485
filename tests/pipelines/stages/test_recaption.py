"""The recaption stage: true captions beside the alt text, part for part, and bytes that never vary."""

import io
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from components.captioning.captioner import Captioner
from components.captioning.config import CaptionerFitConfig, SamplingConfig
from components.captioning.kinds import CAPTION_KINDS, prompt_hash
from components.corpus.schemas import FILTERED, LABELLED, REJECTS, captioned_schema, record_key
from components.judge.config import JudgeFitConfig
from components.training.config import OptimizerConfig, TrainingConfig
from pipelines.errors import StageFailed
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.stage import Input, Stage, StageConfig, Work, fingerprint, run_stage
from pipelines.stages.annotators import STAGE as ANNOTATORS
from pipelines.stages.annotators import AnnotatorsConfig
from pipelines.stages.data.recaption_config import RecaptionConfig
from pipelines.stages.model_runtime import ModelRuntime
from pipelines.stages.recaption import STAGE
from pipelines.store.receipts import Counts, PartReceipt, Receipt
from tests.forks import KILLED, imported_once, status_at
from tests.pipelines.one_by_one import OneByOne

imported_once("open_clip", "transformers.models.llava.modeling_llava")

COLOURS = {"red": (230, 20, 30), "blue": (30, 60, 235), "green": (20, 165, 45), "white": (250, 250, 250)}
KINDS = {"short": {"max_tokens": 8}, "long": {"max_tokens": 16}}
CONFIG = RecaptionConfig(kinds=KINDS, captioner=ModelRuntime(batch_size=8))
OTHER_PROMPT = RecaptionConfig(
    kinds={**KINDS, "long": {"prompt": "Describe the image in full.", "max_tokens": 16}},
    captioner=CONFIG.captioner,
)
ROWS, PARTS = 36, 3


def training(images: int) -> TrainingConfig:
    rates = OptimizerConfig(learning_rate=2e-3, muon_learning_rate=2e-2, warmup_images=64)
    return TrainingConfig(images=images, batch_size=8, optimizer=rates, ema_halflife_images=0)


FITTED = AnnotatorsConfig(
    captioner_fit=CaptionerFitConfig(
        image_size=32,
        channels=(8, 16, 32, 32),
        width=64,
        text_depth=2,
        vocabulary=320,
        tower_fraction=0.2,
        training=training(1600),
    ),
    judge_fit=JudgeFitConfig(width=32, text_depth=1, vocabulary=300, context=16, training=training(320)),
)


def png(colour: str, shade: int) -> bytes:
    """A square of a colour with some noise in it; `shade` draws the noise."""
    noise = np.random.default_rng(shade).integers(-12, 13, (24, 24, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noise + COLOURS[colour], 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def as_input(name: str, home: Path, receipt: Receipt) -> dict[str, tuple[Input]]:
    """A finished stage as the input of the next."""
    return {name: (Input(name, str(home / name / receipt.fingerprint), receipt.digest, receipt),)}


def run(
    home: Path,
    inputs: dict[str, tuple[Input]],
    config: StageConfig = CONFIG,
    *,
    stage: Stage = STAGE,
    engine: Engine | None = None,
    log: TextIO | None = None,
) -> Receipt:
    return run_stage(
        stage,
        config,
        inputs,
        home=home,
        snapshot="default",
        engine=engine or OneByOne(),
        progress=Progress(log, quiet=log is None),
    )


@pytest.fixture(scope="module")
def annotators(tmp_path_factory) -> dict[str, tuple[Input]]:
    """A captioner that knows four colours, and a judge."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("annotators")
    rows = [
        {"image": png(name, 1000 + n), "caption_short": name, "caption_long": f"the colour {name} all over"}
        for n in range(8)
        for name in COLOURS
    ]
    path = home / "labelled.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=LABELLED), path)
    labelled = {"labelled": (Input("labelled", str(path), "l" * 64),)}
    with Engine() as engine:  # the two fits run side by side on Ray
        return as_input("annotators", home, run(home, labelled, FITTED, stage=ANNOTATORS, engine=engine))


def record(n: int) -> dict[str, Any]:
    image = png(list(COLOURS)[n % 4], n)
    return {
        "key": record_key(image, str(n)),
        "image": image,
        "alt_text": f"alt {n}" if n else None,  # dropped by the filter
        "url": f"https://a.example/{n}",
        "width": 24,
        "height": 24,
        "sha256": "0" * 64,
        "language": "en" if n else "und",
        "judge_score": 0.5 if n else None,
    }


def write_filtered(work: Work, parts: int = PARTS) -> Iterable[PartReceipt]:
    """A filter that keeps what the test gives it."""
    for part in range(parts):
        table = pa.Table.from_pylist([record(n) for n in range(part, ROWS, parts)], schema=FILTERED)
        counts = Counts.model_validate({"in": len(table), "kept": len(table)})
        name = f"part-{part:05d}"
        files = {f"filtered/{name}.parquet": partial(pq.write_table, table)}
        yield work.parts.write(name, files, counts=counts)


@pytest.fixture(scope="module")
def inputs(annotators, tmp_path_factory) -> dict[str, tuple[Input]]:
    home = tmp_path_factory.mktemp("filter")
    kept = Stage("filter", 1, StageConfig, (), write_filtered)
    return annotators | as_input("filter", home, run(home, {}, StageConfig(), stage=kept))


def contents(home: Path, receipt: Receipt) -> dict[str, bytes]:
    folder = home / "recaption" / receipt.fingerprint
    return {entry.path: (folder / entry.path).read_bytes() for entry in receipt.files}


def table(home: Path, receipt: Receipt, folder: str) -> pa.Table:
    files = sorted((path, data) for path, data in contents(home, receipt).items() if path.startswith(folder))
    return pa.concat_tables([pq.read_table(io.BytesIO(data)) for _, data in files])


@pytest.fixture(scope="module")
def done(inputs, tmp_path_factory) -> tuple[Path, Receipt]:
    home = tmp_path_factory.mktemp("home")
    return home, run(home, inputs)


def test_every_record_has_true_captions_beside_its_alt_text(done):
    home, receipt = done
    kept = table(home, receipt, "captioned")
    assert kept.schema == captioned_schema(CAPTION_KINDS)
    assert receipt.counts.as_dict() == {"in": ROWS, "kept": ROWS, "rejected": 0, "errored": 0}
    rows = {row["key"]: row for row in kept.to_pylist()}
    right = 0
    for n in range(ROWS):
        row, before, colour = rows[record(n)["key"]], record(n), list(COLOURS)[n % 4]
        assert {name: row[name] for name in before} == before, "what the filter wrote is untouched"
        right += (row["caption_short"], row["caption_long"]) == (colour, f"the colour {colour} all over")
    assert right >= 0.9 * ROWS


def test_captions_carry_their_provenance_and_score(done, inputs):
    home, receipt = done
    rows = table(home, receipt, "captioned").to_pylist()
    assert {row["prompt_hash"] for row in rows} == {prompt_hash(CONFIG.caption_kinds)}
    (captioner,) = {row["captioner"] for row in rows}
    assert captioner
    folder = inputs["annotators"][0].path
    from components.judge.judge import Judge

    judge = Judge.load(f"local-dir:{folder / 'judge'}")
    images = [Image.open(io.BytesIO(row["image"])).convert("RGB") for row in rows]
    for column, caption in (("score_short", "caption_short"), ("score_long", "caption_long")):
        wanted = judge.score(images, [row[caption] for row in rows])
        np.testing.assert_allclose([row[column] for row in rows], wanted, atol=1e-5)


def test_one_part_out_for_each_part_in(done):
    home, receipt = done
    names = [f"part-{part:05d}" for part in range(PARTS)]
    files = set(contents(home, receipt))
    assert files == {f"{folder}/{name}.parquet" for folder in ("captioned", "rejects") for name in names}
    for part, name in enumerate(names):
        keys = pq.read_table(io.BytesIO(contents(home, receipt)[f"captioned/{name}.parquet"]))["key"]
        assert keys.to_pylist() == [record(n)["key"] for n in range(part, ROWS, PARTS)]


def test_order_of_work_does_not_show_in_the_bytes(done, inputs, tmp_path):
    home, receipt = done
    again = run(tmp_path, inputs, engine=OneByOne(backwards=True))
    assert contents(tmp_path, again) == contents(home, receipt)


def test_a_caption_does_not_depend_on_its_part(annotators, done, tmp_path):
    """At a high temperature, so that there is something to draw."""
    config = CONFIG.model_copy(update={"sampling": SamplingConfig(min_p=1e-4)})
    captions = []
    for parts in (PARTS, 4):
        stage = Stage("filter", 1, StageConfig, (), partial(write_filtered, parts=parts))
        filtered = run(tmp_path / str(parts), {}, StageConfig(), stage=stage)
        inputs = annotators | as_input("filter", tmp_path / str(parts), filtered)
        receipt = run(tmp_path / str(parts), inputs, config)
        rows = table(tmp_path / str(parts), receipt, "captioned").to_pylist()
        captions.append({row["key"]: (row["caption_short"], row["caption_long"]) for row in rows})
    assert captions[0] == captions[1]


def test_a_caption_below_the_judges_threshold_rejects_its_record(done, inputs, tmp_path):
    home, receipt = done
    rows = table(home, receipt, "captioned").to_pylist()
    worst = {row["key"]: min(row["score_short"], row["score_long"]) for row in rows}
    threshold = float(np.median(list(worst.values()))) + 1e-4
    thresholded = run(tmp_path, inputs, CONFIG.model_copy(update={"caption_threshold": threshold}))
    rejects = table(tmp_path, thresholded, "rejects")
    assert rejects.schema == REJECTS
    assert set(rejects["key"].to_pylist()) == {key for key, score in worst.items() if score < threshold}
    assert thresholded.reasons == {"caption_score": len(rejects)}
    assert {row["stage"] for row in rejects.to_pylist()} == {"recaption"}
    assert thresholded.counts.kept + thresholded.counts.rejected == ROWS
    examples = table(tmp_path, thresholded, "reject_examples").to_pylist()
    assert {row["key"] for row in examples} <= set(rejects["key"].to_pylist())
    assert examples and all(row["thumbnail"] and row["reason"] == "caption_score" for row in examples)


def test_an_image_that_cannot_be_opened_is_a_reject_and_stops_nothing(inputs, tmp_path):
    rows = [record(n) for n in range(20)]
    rows[3]["image"] = rows[3]["image"][:60]

    def broken(work: Work) -> Iterable[PartReceipt]:
        table = pa.Table.from_pylist(rows, schema=FILTERED)
        counts = Counts.model_validate({"in": len(table), "kept": len(table)})
        yield work.parts.write(
            "part-00000", {"filtered/part-00000.parquet": partial(pq.write_table, table)}, counts=counts
        )

    kept = run(tmp_path, {}, StageConfig(), stage=Stage("filter", 1, StageConfig, (), broken))
    receipt = run(tmp_path, inputs | as_input("filter", tmp_path, kept))
    (reject,) = table(tmp_path, receipt, "rejects").to_pylist()
    assert (reject["key"], reject["reason"]) == (rows[3]["key"], "image_broken")
    assert receipt.counts.as_dict() == {"in": 20, "kept": 19, "rejected": 1, "errored": 0}
    (example,) = table(tmp_path, receipt, "reject_examples").to_pylist()
    assert (example["thumbnail"], example["problem"]) == (None, reject["detail"])


def test_when_no_caption_is_good_enough_the_stage_says_so(inputs, tmp_path):
    with pytest.raises(StageFailed, match="no record has a usable caption"):
        run(tmp_path, inputs, CONFIG.model_copy(update={"caption_threshold": 1.0}))


def test_another_prompt_is_another_output(inputs, done):
    _, receipt = done
    assert fingerprint(STAGE, "default", CONFIG, inputs) == receipt.fingerprint
    assert fingerprint(STAGE, "default", OTHER_PROMPT, inputs) != receipt.fingerprint


def test_a_prompt_that_the_captioner_was_not_fitted_on_gives_a_warning(inputs, tmp_path):
    log = io.StringIO()
    run(tmp_path / "its own", inputs, log=log)
    assert "not fitted" not in log.getvalue()
    run(tmp_path / "another", inputs, OTHER_PROMPT, log=log)
    (warned,) = [line for line in log.getvalue().splitlines() if "not fitted" in line]
    assert "'Describe the image in full.'" in warned and "--set annotators.long_prompt=" in warned


def test_a_pretrained_captioner_goes_the_same_way(annotators, inputs, done, tmp_path):
    """The fitted folder, given by its path as somebody else's model: the same captions, nothing fitted."""
    home, receipt = done
    source = annotators["annotators"][0].path
    config = AnnotatorsConfig(captioner=str(source / "captioner"), judge=f"local-dir:{source / 'judge'}")
    labelled = annotators["annotators"][0].path.parents[1] / "labelled.parquet"
    labelled_input = {"labelled": (Input("labelled", str(labelled), "l" * 64),)}
    pinned = run(tmp_path, labelled_input, config, stage=ANNOTATORS)
    again = run(tmp_path, inputs | as_input("annotators", tmp_path, pinned))
    assert contents(tmp_path, again) == contents(home, receipt)


FAULTS = (
    "recaption.part.before_rename:4",
    "recaption.part.before_receipt:2",
    "recaption.part_receipt.before_rename:3",
    "recaption.receipt.before_rename:1",
)


def test_killed_anywhere_and_run_again_gives_the_same_bytes(inputs, done, tmp_path):
    home, receipt = done
    homes = {fault: tmp_path / fault.replace(":", "-") for fault in FAULTS}
    for fault, path in homes.items():
        assert (fault, status_at(fault, run, path, inputs)) == (fault, KILLED)
        again = run(path, inputs)
        assert contents(path, again) == contents(home, receipt)
        assert not list((path / "recaption").rglob("*.tmp-*"))


def test_what_the_annotators_pinned_is_a_captioner(annotators):
    Captioner.load(str(annotators["annotators"][0].path / "captioner"))
