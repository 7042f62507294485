"""The evaluate stage: its metrics of two models are those of its own tables and images, killed or not."""

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from components.evaluation.bootstrap import bootstrap
from components.evaluation.frechet import frechet_distance
from components.evaluation.measure import AS_IS, DEFAULT
from components.evaluation.results import read_metrics
from components.generation.generator import Generator
from components.judge.judge import Judge
from components.randomness import derive_seed
from components.shards.decode import decode_square
from components.shards.index import HOLDOUT, INDEX_NAME, TRAIN
from components.shards.reader import read_split
from components.toyworld.prompts import CATEGORIES, FORMS
from pipelines.errors import ConfigError, StageFailed
from pipelines.registry.mlflow_store import Tracker
from pipelines.stages.evaluate import SAMPLE_ROWS, STAGE
from pipelines.stages.model_runtime import ModelRuntime
from pipelines.store.receipts import Receipt, content_digest
from tests.forks import KILLED, STORES, imported_once, status_at
from tests.pipelines.stages.small_models import (
    CONFIG,
    MODES,
    PER_FORM,
    PROMPTS,
    RUNS,
    SIDE,
    StagesBefore,
    write_model,
    write_shards,
)
from tests.small_judge import save_judge

imported_once("open_clip", *STORES)


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> StagesBefore:
    root = tmp_path_factory.mktemp("inputs")
    save_judge(root / "annotators" / "judge")
    write_model(root / "train" / "model", "flow", seed=1)
    write_model(root / "distill" / "model", "consistency", seed=2)
    write_shards(root / "shard", range(40), range(100, 120))
    write_shards(root / "more", range(40, 50), range(120, 130))
    write_shards(root / "few", range(1), range(100, 120))
    return StagesBefore(root, f"sqlite:///{root}/mlflow.db")


@pytest.fixture(scope="module")
def done(before: StagesBefore, tmp_path_factory) -> tuple[Path, Receipt]:
    home = tmp_path_factory.mktemp("home")
    return home, before.run(home)


def output(home: Path, receipt: Receipt) -> Path:
    return home / "evaluate" / receipt.fingerprint


def rows_of(home: Path, receipt: Receipt, model: str, steps: int) -> list[dict[str, Any]]:
    table = pq.ParquetFile(output(home, receipt) / f"samples/{model}-{steps}.parquet").read()
    assert table.schema.equals(SAMPLE_ROWS)
    return table.to_pylist()


def pixels(rows: list[Mapping[str, Any]]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(row["image"]))) for row in rows])


def contents(home: Path, receipt: Receipt) -> dict[str, bytes]:
    """The bytes of every file but timings.json."""
    files = {entry.path: (output(home, receipt) / entry.path).read_bytes() for entry in receipt.files}
    del files["timings.json"]
    return files


def test_every_model_generates_every_prompt_both_ways_at_every_number_of_steps(done):
    home, receipt = done
    count = 2 * PROMPTS * len(RUNS)
    assert receipt.counts.as_dict() == {"in": count, "kept": count, "rejected": 0, "errored": 0}
    rows = [rows_of(home, receipt, *run) for run in RUNS]
    prompts = [[(row["mode"], row["prompt"]) for row in of_run] for of_run in rows]
    assert all(of_run == prompts[0] for of_run in prompts)
    assert [(row["form"], row["mode"]) for row in rows[0]] == [
        (form, mode) for mode in MODES for form in FORMS for _ in range(PER_FORM)
    ]
    document = json.loads((output(home, receipt) / "metrics.json").read_text())
    assert {model: list(document[model]) for model in ("teacher", "undistilled", "student")} == {
        "teacher": ["2"],  # its own number of steps
        "undistilled": ["1"],
        "student": ["1", "2"],
    }
    assert list(document["scorer"]) == list(FORMS)
    assert set(document["floors"]) == {"coverage", "frechet", "kernel", "nearest"}
    assert document["protocol"] == {
        name: receipt.info[name] for name in ("prompts_digest", "reference_digest")
    }


def test_the_seconds_lie_beside_the_metrics_and_are_no_part_of_the_digest(done):
    home, receipt = done
    assert [entry.path for entry in receipt.files if entry.timing] == ["timings.json"]
    assert "seconds" not in (output(home, receipt) / "metrics.json").read_text()
    timings = json.loads((output(home, receipt) / "timings.json").read_text())
    assert {(m, int(s)) for m in timings for s in timings[m]} == set(RUNS)
    assert all(timings[m][s]["seconds_per_image"] > 0 for m in timings for s in timings[m])
    slower = [
        entry.model_copy(update={"sha256": "0" * 64}) if entry.timing else entry for entry in receipt.files
    ]
    assert content_digest(slower) == receipt.digest


def test_the_metrics_are_those_of_the_images(before, done):
    """Computed again from the tables and their PNGs alone, every number is the same."""
    home, receipt = done
    metrics = read_metrics(output(home, receipt) / "metrics.json")
    judge = Judge.load(f"local-dir:{before.root / 'annotators' / 'judge'}")
    for model, steps in RUNS:
        evaluation = metrics.of(model, steps)
        every = rows_of(home, receipt, model, steps)
        rows = {mode: [row for row in every if row["mode"] == mode] for mode in MODES}
        default = rows[DEFAULT]
        images = [Image.fromarray(image) for image in pixels(default)]
        scores = judge.score(images, [row["prompt"] for row in default])
        assert [row["judge_score"] for row in default] == pytest.approx(scores.tolist(), abs=1e-6)
        assert evaluation.metrics["judge_score"] == pytest.approx(scores.mean(), abs=1e-6)
        training = list(read_split(before.root / "shard" / INDEX_NAME, TRAIN))[:12]
        seen = judge.image_features([Image.fromarray(decode_square(one.image, SIDE)) for one in training])
        nearest = 1 - (judge.image_features(images) @ seen.T).max(axis=1)
        assert evaluation.metrics["nearest"] == pytest.approx(np.median(nearest), abs=1e-5)
        for mode, shares, geneval in (
            (DEFAULT, evaluation.prompt_following, evaluation.geneval),
            (AS_IS, evaluation.prompt_following_as_is, evaluation.geneval_as_is),
        ):
            for form in FORMS:
                verdicts = [row["correct"] for row in rows[mode] if row["form"] == form]
                assert shares[form] == np.mean(verdicts)
            for category in CATEGORIES:
                assert geneval[category] == np.mean(
                    [row["geneval"] for row in rows[mode] if row["category"] == category]
                )
        interval = bootstrap([r["correct"] for r in default], [r["form"] for r in default], CONFIG.seed)
        assert evaluation.intervals["prompt_following"] == interval


def test_frechet_is_of_images_of_the_held_out_images_own_captions(before, done):
    home, receipt = done
    metrics = read_metrics(output(home, receipt) / "metrics.json")
    judge = Judge.load(f"local-dir:{before.root / 'annotators' / 'judge'}")
    held_out = list(read_split(before.root / "shard" / INDEX_NAME, HOLDOUT))[:30]
    squares = [Image.fromarray(decode_square(sample.image, SIDE)) for sample in held_out]
    captions = [sample.meta["caption_long"] for sample in held_out]
    generator = Generator.load(before.root / "distill" / "model", batch_size=5, precision="auto")
    generated = generator.generate(captions, steps=2, seed=derive_seed(0, "captions"))
    images = judge.image_features([Image.fromarray(image) for image in generated])
    distance = frechet_distance(images, judge.image_features(squares))
    assert metrics.of("student", 2).metrics["frechet"] == pytest.approx(distance, rel=1e-6)


def test_the_images_are_the_generators_own_and_start_from_one_seed(before, done):
    home, receipt = done
    makers = ("train", "train", "distill", "distill")
    for (model, steps), maker in zip(RUNS, makers, strict=True):
        generator = Generator.load(before.root / maker / "model", batch_size=5, precision="auto")
        guidance = 1.0 if model == "undistilled" else None
        for mode in MODES:
            rows = [row for row in rows_of(home, receipt, model, steps) if row["mode"] == mode]
            prompts, captions = ([row[name] for row in rows] for name in ("prompt", "caption"))
            if mode == AS_IS:
                assert captions == prompts and {row["how"] for row in rows} == {"as is"}
            else:
                upsampled = generator.upsample(prompts, seed=0)
                assert captions == [one.caption for one in upsampled] != prompts
                assert [row["how"] for row in rows] == [one.how for one in upsampled]
            generated = generator.generate(captions, steps=steps, seed=0, guidance=guidance)
            assert (generated == pixels(rows)).all(), f"{model} at {steps} steps, {mode}"


def test_images_of_some_right_and_some_wrong_prompts_are_kept(before, tmp_path):
    receipt = before.run(tmp_path, CONFIG.model_copy(update={"shown": 1}))
    for run in RUNS:
        rows = rows_of(tmp_path, receipt, *run)
        for mode, form in ((mode, form) for mode in MODES for form in FORMS):
            own = [row for row in rows if (row["mode"], row["form"]) == (mode, form)]
            for verdict in {row["correct"] for row in own}:
                kept = [row["image"] is not None for row in own if row["correct"] is verdict]
                assert kept[:2] == [True, True][: len(kept)]
        assert sum(row["image"] is None for row in rows) > 20


def test_the_grid_shows_what_was_kept(before, tmp_path):
    receipt = before.run(tmp_path, CONFIG.model_copy(update={"shown": 3}))
    rows = rows_of(tmp_path, receipt, "student", 1)
    kept = [row["index"] for row in rows if row["image"] and row["mode"] == DEFAULT]
    assert {0, 14, 29} <= set(kept) and len(kept) < PROMPTS
    with Image.open(output(tmp_path, receipt) / "samples.png") as grid:
        assert grid.size[1] < 3 * 120 + 60
    assert (output(tmp_path, receipt) / "quality.svg").read_text().startswith("<svg")


def test_the_same_evaluation_again_is_the_same_bytes(before, done, tmp_path):
    home, receipt = done
    again = before.run(tmp_path)
    assert contents(tmp_path, again) == contents(home, receipt)
    assert again.digest == receipt.digest
    assert again.info["prompts_digest"] == receipt.info["prompts_digest"]
    written = (output(tmp_path, again) / "metrics.json").stat().st_mtime_ns
    assert before.run(tmp_path) == again
    assert (output(tmp_path, again) / "metrics.json").stat().st_mtime_ns == written, "it was made twice"


def test_a_killed_evaluation_goes_on_where_it_was(before, done, tmp_path):
    assert status_at("evaluate.part.before_receipt:2", StagesBefore(before.root, "").run, tmp_path) == KILLED
    (out,) = (path for path in (tmp_path / "evaluate").iterdir() if path.is_dir())
    first = out / "samples/teacher-2.parquet"
    written = first.stat().st_mtime_ns
    receipt = before.run(tmp_path)
    assert first.stat().st_mtime_ns == written, "a finished part was made again"
    assert contents(tmp_path, receipt) == contents(*done)
    assert not list(out.rglob("*.tmp-*"))


def test_everything_is_found_in_mlflow(before, done):
    home, receipt = done
    tracker = Tracker(home, before.tracking_uri)
    run_id = tracker.find("evaluate", receipt.fingerprint)
    assert run_id == receipt.info["mlflow_run"]
    metrics = read_metrics(output(home, receipt) / "metrics.json")
    curve = tracker.client.get_metric_history(run_id, "student.prompt_following.mean")
    assert {point.step: point.value for point in curve} == {
        1: metrics.of("student", 1).mean,
        2: metrics.of("student", 2).mean,
    }
    (teacher,) = tracker.client.get_metric_history(run_id, "teacher.frechet")
    assert (teacher.step, teacher.value) == (
        4,
        metrics.of("teacher", 2).metrics["frechet"],
    )  # guided: two a step
    seconds = tracker.client.get_metric_history(run_id, "teacher.seconds_per_image")
    assert metrics.of("teacher", 2).seconds_per_image in [point.value for point in seconds]
    run = tracker.client.get_run(run_id)
    assert run.data.params["prompts_per_form"] == str(PER_FORM)
    assert {dataset.dataset.name for dataset in run.inputs.dataset_inputs} == set(STAGE.inputs)
    artifacts = {entry.path for entry in tracker.client.list_artifacts(run_id)}
    assert {"metrics.json", "timings.json", "samples.png", "quality.svg", "tables"} <= artifacts


def test_a_domain_without_a_scorer_is_measured_on_its_own_held_out_captions(before, tmp_path):
    receipt = before.run(tmp_path, CONFIG.model_copy(update={"domain": "open", "prompts": 7}))
    rows = rows_of(tmp_path, receipt, "student", 1)
    held_out = [s.meta["caption_short"] for s in read_split(before.root / "shard" / INDEX_NAME, HOLDOUT)]
    assert [row["prompt"] for row in rows] == list(dict.fromkeys(held_out))[:7]
    assert {row["correct"] for row in rows} == {row["category"] for row in rows} == {None}
    document = json.loads((output(tmp_path, receipt) / "metrics.json").read_text())
    assert document["scorer"] == {}
    assert all(entry["prompt_following"] == {} for entry in document["student"].values())
    assert (output(tmp_path, receipt) / "samples.png").is_file()


def test_the_held_out_images_of_every_snapshot_are_the_reference(before, done, tmp_path):
    config = CONFIG.model_copy(update={"reference_images": 100})
    alone = before.run(tmp_path, config)
    both = before.run(tmp_path, config, shards=("shard", "more"))
    assert alone.info["prompts_digest"] == both.info["prompts_digest"]
    assert alone.info["reference_digest"] != both.info["reference_digest"]
    distances = [
        read_metrics(output(tmp_path, r) / "metrics.json").of("student", 1).metrics["frechet"]
        for r in (alone, both)
    ]
    assert distances[0] != distances[1]
    assert done[1].info["reference_digest"] != alone.info["reference_digest"]


def test_the_judge_runs_as_the_config_says_and_another_dtype_is_another_protocol(before, done, tmp_path):
    _, usual = done
    judge = ModelRuntime(device="cpu", dtype="bfloat16", batch_size=7)
    receipt = before.run(tmp_path, CONFIG.model_copy(update={"judge": judge, "device": "cpu"}))
    assert receipt.info["prompts_digest"] == usual.info["prompts_digest"]
    assert receipt.info["reference_digest"] != usual.info["reference_digest"]
    scores = [
        [row["judge_score"] for row in rows_of(*of, "student", 1)] for of in (done, (tmp_path, receipt))
    ]
    assert scores[0] != scores[1]
    assert scores[1] == pytest.approx(scores[0], abs=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("change", "setting"),
    [({"device": "cuda"}, "evaluate"), ({"judge": ModelRuntime(device="cuda")}, "evaluate.judge")],
)
def test_a_gpu_that_is_not_there_is_refused_in_one_line(before, tmp_path, change, setting):
    with pytest.raises(ConfigError, match=rf"^{setting}\.device is cuda, .* sees no GPU") as refused:
        before.run(tmp_path, CONFIG.model_copy(update=change))
    assert "\n" not in str(refused.value)


def test_too_few_held_out_records_are_named_with_what_to_do(before, tmp_path):
    with pytest.raises(StageFailed, match=r"1 held-out records in .*few.*shard\.holdout_fraction"):
        before.run(tmp_path, shards=("few",))


def test_importing_the_stage_does_not_import_torch_or_a_plotting_library():
    heavy = "{'torch', 'matplotlib', 'mlflow'} & set(sys.modules)"
    code = f"import sys, pipelines.stages.evaluate, pipelines.report; print({heavy})"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"


def test_tables_of_every_run_lie_in_one_dataset(done):
    home, receipt = done
    table = pq.read_table(output(home, receipt) / "samples")
    assert table.num_rows == 2 * PROMPTS * len(RUNS)
    assert pa.compute.count_distinct(table["model"]).as_py() == 3
