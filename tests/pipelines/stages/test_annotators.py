"""The annotators stage: fitted at the same time, or pretrained and pinned; errors of one line."""

import io
import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from components.captioning.captioner import Captioner
from components.captioning.fit import fit_captioner
from components.captioning.kinds import LONG_PROMPT, SHORT_PROMPT
from components.corpus.labelled import read_labelled
from components.corpus.schemas import LABELLED
from components.judge.fit import fit_judge
from components.judge.judge import Judge
from components.toyworld.web import write_toy_web
from pipelines.config import RunConfig
from pipelines.errors import ConfigError, StageFailed
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.sources import find_source
from pipelines.stage import Input, run_stage
from pipelines.stages.annotators import (
    CAPTION_TRUTH,
    CAPTIONER,
    JUDGE,
    STAGE,
    SUMMARY,
    AnnotatorsConfig,
    held_out_quality,
)
from pipelines.store.receipts import Receipt, sha256_file

RECORDS, BAD = 24, 2
TRAINING = {"images": 64, "batch_size": 16, "ema_halflife_images": 0}
SMALL = {"image_size": 32, "width": 32, "text_depth": 1, "vocabulary": 320, "training": TRAINING}
CONFIG = AnnotatorsConfig(
    holdout_fraction=0.2,
    captioner_fit={**SMALL, "heads": 2, "channels": (8, 8, 16, 16)},
    judge_fit={**SMALL, "embedding": 32, "context": 16, "vision_width": 8},
)
NO_LABELLED = Input("labelled", "", "none")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Input:
    """Plain colours and what they are; two records are none."""
    path, rows = tmp_path_factory.mktemp("labelled") / "labelled.parquet", []
    for number in range(RECORDS):
        stream = io.BytesIO()
        Image.fromarray(np.full((32, 32, 3), number * 10, np.uint8)).save(stream, "PNG")
        text = f"grey {number}"
        rows.append(
            {"image": stream.getvalue(), "caption_short": text, "caption_long": f"all of it is {text}"}
        )
    rows += [{"image": b"none", "caption_short": "a", "caption_long": "b"}] * BAD
    pq.write_table(pa.Table.from_pylist(rows, LABELLED), path)
    return Input("labelled", str(path), sha256_file(path))


class Bars(Progress):
    """Remembers how far each task came."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.done: dict[str, int] = {}

    def task(self, name, total, unit):
        def advance(n: int = 1, note: str = "") -> None:
            self.done[name] = self.done.get(name, 0) + n

        return nullcontext(advance)


def run(home: Path, engine: Engine, given: Input, progress: Progress | None = None, **settings) -> Receipt:
    return run_stage(
        STAGE,
        AnnotatorsConfig(**{**CONFIG.model_dump(), **settings}),
        {"labelled": (given,)},
        home=home,
        snapshot="",
        engine=engine,
        progress=progress or Progress(quiet=True),
    )


def output(home: Path, receipt: Receipt) -> Path:
    return home / STAGE.name / receipt.fingerprint


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, labelled) -> Path:
    """Both annotators fitted in this process, one after the other."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("alone")
    records = read_labelled(labelled.location, CONFIG.holdout_fraction).train
    for name in (JUDGE, CAPTIONER):
        (folder / name).mkdir()
    fit_judge(records, folder / JUDGE, CONFIG.judge_fit, seed=0)
    prompts = (SHORT_PROMPT, LONG_PROMPT)
    fit_captioner(records, folder / CAPTIONER, CONFIG.captioner_fit, prompts=prompts, seed=0)
    return folder


@pytest.fixture(scope="module")
def engine():
    with Engine() as engine:
        yield engine


def test_fitted_side_by_side_they_are_what_they_are_alone(tmp_path, labelled, alone, engine):
    bars = Bars()
    receipt = run(tmp_path, engine, labelled, bars)
    out = output(tmp_path, receipt)
    assert bars.done == {JUDGE: TRAINING["images"], CAPTIONER: TRAINING["images"]}
    for name in (JUDGE, CAPTIONER):
        assert files(out / name) == files(alone / name)
    summary = json.loads((out / SUMMARY).read_text())
    assert summary["labelled"] + summary["held_out"] == RECORDS
    assert 0 <= summary["long_word_for_word"] <= 1 and CAPTION_TRUTH not in summary
    assert summary["judge_revision"] is summary["captioner_revision"] is None
    assert receipt.counts.as_dict() == {"in": RECORDS + BAD, "kept": RECORDS, "rejected": BAD, "errored": 0}
    assert sum(receipt.reasons.values()) == BAD
    assert {path.name for path in out.iterdir()} == {JUDGE, CAPTIONER, SUMMARY, "parts", "receipt.json"}

    open_clip.create_model_and_transforms(f"local-dir:{out / JUDGE}")
    AutoProcessor.from_pretrained(out / CAPTIONER)
    AutoModelForImageTextToText.from_pretrained(out / CAPTIONER)


def test_of_a_toy_web_the_captions_truth_is_measured(tmp_path, engine):
    """A captioner that has learned nothing tells no truth; of another labelled set, words are compared."""
    toy = write_toy_web(tmp_path / "toy", records=1, seed=0, labelled=RECORDS).labelled
    receipt = run(tmp_path, engine, Input("labelled", str(toy), sha256_file(toy)))
    assert receipt.info["held_out"] > 0
    assert receipt.info[CAPTION_TRUTH] == {
        "short": {"entirely_true": 0.0},
        "long": {"entirely_true": 0.0, "complete": 0.0},
    }
    assert "long_word_for_word" not in receipt.info


@pytest.mark.parametrize(("shift", "share"), [(0, 1.0), (1, 0.0)])
def test_true_captions_count_and_those_of_other_images_do_not(monkeypatch, tmp_path, shift, share):
    """The captions that the world wrote, handed to the images in order or one further."""
    toy = write_toy_web(tmp_path, records=1, seed=0, labelled=60).labelled
    held_out = read_labelled(str(toy), 0.9).held_out
    texts = {kind: [record.captions[n] for record in held_out] for n, kind in enumerate(("short", "long"))}
    written = {kind: [*rows[shift:], *rows[:shift]] for kind, rows in texts.items()}

    class Scripted:
        def caption(self, images, kind, keys):
            return written[kind.name]

    monkeypatch.setattr(Captioner, "load", lambda *args, **settings: Scripted())
    truth = held_out_quality(CONFIG, tmp_path, held_out)[CAPTION_TRUTH]
    assert truth["long"] == {"entirely_true": share, "complete": share}
    assert abs(truth["short"]["entirely_true"] - share) < 0.1  # few words are now and then true of another


def test_a_labelled_set_that_cannot_be_used_is_one_line(tmp_path, engine):
    path = tmp_path / "labelled.parquet"
    pq.write_table(pa.table({"image": [b"x"]}), path)
    with pytest.raises((ValueError, StageFailed), match="caption_short") as caught:
        run(tmp_path, engine, Input("labelled", str(path), "0"))
    assert "\n" not in str(caught.value)


def test_more_threads_than_this_machine_has_are_one_line(tmp_path, labelled, engine):
    fit = {**CONFIG.judge_fit.model_dump(), "training": {**TRAINING, "cpu_threads": 999}}
    with pytest.raises(ConfigError, match="threads of judge: 1 processes of 999 CPU each"):
        run(tmp_path, engine, labelled, judge_fit=fit)


def test_pretrained_ones_are_pinned_and_ask_for_no_labelled_set(tmp_path, alone):
    given = tmp_path / "given"
    shutil.copytree(alone, given)
    settings = {JUDGE: str(given / JUDGE), CAPTIONER: str(given / CAPTIONER)}
    receipt = run(tmp_path, Engine("nowhere"), NO_LABELLED, **settings)
    out = output(tmp_path, receipt)
    for name in (JUDGE, CAPTIONER):
        assert files(out / name) == files(alone / name)
    assert set(receipt.counts.as_dict().values()) == {0}
    for path in given.rglob("*"):  # edited later, in place
        if path.is_file():
            with path.open("ab") as file:
                file.write(b"more")
    assert run(tmp_path, Engine("nowhere"), NO_LABELLED, **settings) == receipt
    assert files(out / JUDGE) == files(alone / JUDGE)


def test_no_labelled_set_is_looked_for_when_both_are_pretrained(tmp_path):
    pretrained = AnnotatorsConfig(judge="a", captioner="b")
    found = find_source("labelled", RunConfig(corpus="folder:x", annotators=pretrained), tmp_path)
    assert found == NO_LABELLED
    half = RunConfig(corpus="folder:x", annotators=AnnotatorsConfig(judge="a"))
    with pytest.raises(ConfigError, match="give a labelled set"):
        find_source("labelled", half, tmp_path)


def test_a_judge_by_open_clips_name_and_weights_is_the_same_from_its_folder(tmp_path, alone):
    sizes = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "straightshot-tiny.json").write_text(json.dumps(sizes))
    open_clip.add_model_config(tmp_path / "straightshot-tiny.json")
    torch.manual_seed(0)
    model, weights = open_clip.create_model("straightshot-tiny"), tmp_path / "weights.pt"
    torch.save(model.state_dict(), weights)
    named = {JUDGE: "straightshot-tiny", "judge_pretrained": str(weights)}
    receipt = run(tmp_path, Engine(), NO_LABELLED, **named, captioner=str(alone / CAPTIONER))
    pinned = Judge.load(f"local-dir:{output(tmp_path, receipt) / JUDGE}")
    direct = Judge.load("straightshot-tiny", str(weights))
    image = Image.fromarray(np.arange(48 * 40 * 3, dtype=np.uint8).reshape(48, 40, 3))
    np.testing.assert_array_equal(pinned.image_features([image]), direct.image_features([image]))
    np.testing.assert_array_equal(pinned.text_features(["grey"]), direct.text_features(["grey"]))


def test_the_commits_of_hub_ids_are_in_the_summary(tmp_path, alone, monkeypatch):
    downloads = []

    def snapshot_download(model: str, revision: str | None = None, allow_patterns: None = None) -> str:
        downloads.append((model, revision))
        folder = tmp_path / "hub" / model / "snapshots" / f"commit-of-{revision}"
        shutil.copytree(alone / model.rpartition("/")[2], folder)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    ids = {JUDGE: "hf-hub:us/judge@v1", CAPTIONER: "us/captioner", "captioner_revision": "v2"}
    receipt = run(tmp_path, Engine(), NO_LABELLED, **ids)
    assert downloads == [("us/judge", "v1"), ("us/captioner", "v2")]
    assert receipt.info["judge_revision"] == "commit-of-v1"
    assert receipt.info["captioner_revision"] == "commit-of-v2"
    out = tmp_path / "annotators" / receipt.fingerprint
    (out / JUDGE / "open_clip_model.safetensors").write_bytes(b"damaged")
    shutil.rmtree(tmp_path / "hub" / "us" / "judge")
    again = run(tmp_path, Engine(), NO_LABELLED, **ids)
    assert downloads[2:] == [("us/judge", "v1")]  # the captioner was whole
    assert again.digest == receipt.digest


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({CAPTIONER: "no/such"}, "annotators.captioner 'no/such' is neither a folder nor a model"),
        ({CAPTIONER: "/no/such/folder"}, "annotators.captioner '/no/such/folder' is neither a folder nor"),
        ({JUDGE: "hf-hub:no/such"}, "annotators.judge 'hf-hub:no/such' is neither a folder nor a model"),
        ({JUDGE: "/no/such/folder"}, "annotators.judge '/no/such/folder': no such folder"),
        ({JUDGE: "local-dir:gone"}, "annotators.judge 'local-dir:gone': no such folder"),
        ({JUDGE: "ViT-B-32"}, "judge 'ViT-B-32': name its pretrained tag too"),
        ({JUDGE: "ViT-B-99", "judge_pretrained": "openai"}, "judge 'ViT-B-99'"),
        ({JUDGE: "EMPTY"}, "judge 'local-dir:.*open_clip_config.json"),
        ({CAPTIONER: "EMPTY"}, "captioner .* cannot be loaded"),
    ],
)
def test_what_is_no_annotator_is_named_in_one_line(tmp_path, alone, monkeypatch, settings, message):
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    def unreachable(model: str, revision: str | None = None, allow_patterns: None = None) -> str:
        raise (HFValidationError if model.startswith("/") else LocalEntryNotFoundError)("not\nthere")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    (tmp_path / "empty").mkdir()
    given = {name: str(tmp_path / "empty") if value == "EMPTY" else value for name, value in settings.items()}
    others = {JUDGE: str(alone / JUDGE), CAPTIONER: str(alone / CAPTIONER)}
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, Engine(), NO_LABELLED, **{**others, **given})
    assert "\n" not in str(caught.value)
