"""The train and distill stages on tiny shards: what they leave, and that a SIGKILL changes no byte of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from components.diffusion.dit import DiT
from components.errors import InputError
from components.generation.generator import Generator
from components.generation.model_folder import load_model
from components.randomness import seeded_weights
from components.upsampling.prompt_upsampler import unchanged
from pipelines.errors import ConfigError, StageFailed
from pipelines.execution.progress import Progress
from pipelines.registry.mlflow_store import Tracker
from pipelines.stage import Input
from pipelines.stages.distill import STAGE as DISTILL
from pipelines.stages.train import STAGE as TRAIN
from pipelines.store.receipts import Receipt
from tests.forks import KILLED, STORES, imported_once, status_at
from tests.pipelines.stages.small_trainings import (
    NETWORK,
    SAMPLES,
    UPSAMPLER_FILES,
    contents,
    interrupted_after,
    output,
    run,
    run_both,
    run_train,
    shards,
)

imported_once("torch._dynamo", "transformers", *STORES)
FAULTS = (
    "upsampler.checkpoint.before_rename:2",
    "train.checkpoint.before_rename:2",
    "train.folder.before_rename",
    "distill.checkpoint.before_rename:2",
)


def test_the_stages_leave_a_teacher_a_student_and_their_curves(whole):
    home, _, *receipts = whole
    for receipt, kind, steps in zip(receipts, ("flow", "consistency"), (50, 1), strict=True):
        assert {entry.path for entry in receipt.files} == {
            "model/config.json", "model/model.safetensors", "model/tokenizer.json", "curve.json",
            "model/upsampler/card.json", *(f"model/upsampler/language_model/{n}" for n in UPSAMPLER_FILES),
        }  # fmt: skip
        assert receipt.counts.as_dict() == {"in": SAMPLES, "kept": SAMPLES, "rejected": 0, "errored": 0}
        assert not (output(home, receipt) / "scratch").exists()
        curve = json.loads((output(home, receipt) / "curve.json").read_text())
        assert [point["images_seen"] for point in curve] == [24, 48, 72, 96]
        assert all(np.isfinite(point["values"]["loss"]) for point in curve)
        model = load_model(output(home, receipt) / "model")
        card = model.card
        assert (card.kind, card.steps, card.guidance, card.images_seen) == (kind, steps, 3.0, 96)
        assert model.network.config.image_size == 8
        assert all(parameter.isfinite().all() for parameter in model.network.parameters())
        images = Generator(model).generate(["all red", ""])
        assert images.shape == (2, 8, 8, 3)
    teacher, student = (output(home, receipt) / "model" / "upsampler" for receipt in receipts)
    files = [path for path in teacher.rglob("*") if path.is_file()]
    assert len(files) == 1 + len(UPSAMPLER_FILES)
    for path in files:
        assert (student / path.relative_to(teacher)).read_bytes() == path.read_bytes()


def test_the_student_starts_from_the_teacher_and_learns(whole):
    home, _, train, distill = whole
    teacher, student = (load_model(output(home, r) / "model").network.state_dict() for r in (train, distill))
    changes = {name: (student[name] - teacher[name]).abs().max().item() for name in teacher}
    assert 0 < max(changes.values()) < 0.5
    assert not torch.equal(student["out.weight"], teacher["out.weight"])


def distill(whole, tmp_path: Path, tracking: str, **settings) -> Receipt:
    """Another student of the teacher in `whole`, in a HOME of its own."""
    home, shard, train, _ = whole
    teacher = Input("train", str(output(home, train)), train.digest, train)
    return run(tmp_path, DISTILL, tracking, {"train": (teacher,), "shard": (shard,)}, **settings)


def test_consistency_training_from_scratch_ends_in_a_student_with_tuned_times(whole, tmp_path, tracking):
    consistency = {"method": "ct", "curriculum": "doubling", "intervals": 4, "target": "ema", "metric": "l2"}
    settings = {"start": "scratch", "tuned_steps": [2], "tuning_images": 8, "images": 32}
    receipt = distill(whole, tmp_path, tracking, consistency=consistency, **settings)
    model = load_model(output(tmp_path, receipt) / "model")
    assert (model.card.kind, model.card.guidance) == ("consistency", 1.0)
    assert list(model.card.times) == [2] and 0 < model.card.times[2][1] < 1
    teacher = load_model(output(whole[0], whole[2]) / "model")
    with seeded_weights(0, "student weights"):
        start = DiT(teacher.card.dit)
    changes = [
        (a - b).abs().max().item()
        for a, b in zip(model.network.parameters(), start.parameters(), strict=True)
    ]
    assert 0 < max(changes) < 0.1  # a few steps away from its own start
    assert Generator(model).generate(["all red"], steps=2).shape == (1, 8, 8, 3)


def test_a_mean_flow_student_starts_from_the_teacher_and_generates(whole, tmp_path, tracking):
    receipt = distill(whole, tmp_path, tracking, consistency={"method": "mean_flow"}, images=32)
    student = load_model(output(tmp_path, receipt) / "model")
    teacher = load_model(output(whole[0], whole[2]) / "model").network.state_dict()
    assert (student.card.kind, student.card.guidance, student.card.dit.second_time) == (
        "mean_flow",
        3.0,
        True,
    )
    weights = student.network.state_dict()
    assert all((weights[name] - teacher[name]).abs().max() < 0.1 for name in teacher)
    assert student.network.second_time_in[-1].weight.abs().max() > 0
    for steps in (1, 2):
        assert Generator(student).generate(["all red"], steps=steps).shape == (1, 8, 8, 3)


def test_a_matched_student_is_kept_without_its_fake_and_goes_on_to_the_same_bytes(
    whole, tmp_path, tracking, monkeypatch
):
    settings = {"consistency": {"intervals": 4, "matching": {}}, "checkpoint_images": 16, "images": 48}
    alone = distill(whole, tmp_path / "alone", tracking, **{**settings, "consistency": {"intervals": 4}})
    undisturbed = distill(whole, tmp_path / "undisturbed", tracking, **settings)
    files, without = contents(tmp_path / "undisturbed", undisturbed), contents(tmp_path / "alone", alone)
    assert files.keys() == without.keys()
    weights, unmatched = (
        load_model(output(tmp_path / name, receipt) / "model").network.state_dict()
        for name, receipt in (("undisturbed", undisturbed), ("alone", alone))
    )
    assert weights.keys() == unmatched.keys() and not torch.equal(
        weights["out.weight"], unmatched["out.weight"]
    )
    assert {"fake", "slope"} <= json.loads(files["curve.json"])[-1]["values"].keys()
    monkeypatch.setattr(Progress, "task", interrupted_after(24))
    with pytest.raises(KeyboardInterrupt):
        distill(whole, tmp_path / "resumed", tracking, **settings)
    monkeypatch.undo()
    resumed = distill(whole, tmp_path / "resumed", tracking, **settings)
    assert contents(tmp_path / "resumed", resumed) == files


@pytest.mark.parametrize("fault", FAULTS)
def test_killed_and_run_again_gives_the_same_bytes(whole, tracking, tmp_path, fault):
    home, shard, *receipts = whole
    left = tmp_path / "killed"
    assert status_at(fault, run_both, left, tracking, Input("shard", shard.location, shard.digest)) == KILLED
    stage = fault.partition(".")[0]
    complete = [path.parent for path in left.rglob("checkpoint.json")]
    names = [path.name for path in complete if ("upsampler" in path.parts) == (stage == "upsampler")]
    assert sum(name.isdigit() for name in names) == 1
    # Of the stage that was killed the first is whole, the second is not.
    first = {"upsampler": 16, "train": 32, "distill": 32}[stage]
    assert ("checkpoint" in fault) == (f"{first:012d}" in names)
    for resumed, undisturbed in zip(run_both(left, tracking, shard), receipts, strict=True):
        assert contents(left, resumed) == contents(home, undisturbed)
        assert resumed.digest == undisturbed.digest
    assert not list(left.rglob("*.tmp-*"))


def test_the_curves_are_in_mlflow_once_however_often_a_stage_was_killed(whole, tracking):
    home, shard, *receipts = whole
    tracker = Tracker(home, tracking)
    for receipt in receipts:
        run_id = tracker.find(receipt.stage, receipt.fingerprint)
        assert run_id == receipt.info["mlflow_run"]
        history = tracker.client.get_metric_history(run_id, "loss")
        curve = json.loads((output(home, receipt) / "curve.json").read_text())
        expected = [(point["images_seen"], point["values"]["loss"]) for point in curve]
        assert sorted((point.step, point.value) for point in history) == expected
        tracked = tracker.client.get_run(run_id).data
        assert tracked.tags["dataset.shard"] == shard.digest
        assert tracked.params["batch_size"] == "8"


def test_without_an_upsampler_there_is_none(tmp_path, tracking):
    receipt = run_train(
        tmp_path, tracking, shards(tmp_path / "shards"), images=8, upsampler={"model": "none"}
    )
    assert not (output(tmp_path, receipt) / "model" / "upsampler").exists()
    generator = Generator.load(output(tmp_path, receipt) / "model")
    assert generator.upsample(["all red"]) == unchanged(["all red"])


def test_a_model_that_sees_no_long_captions_gets_no_upsampler(tmp_path, tracking):
    blend = {"alt": 0.1, "short": 0.9, "long": 0.0}
    receipt = run_train(tmp_path, tracking, shards(tmp_path / "shards"), images=8, blend=blend)
    assert not (output(tmp_path, receipt) / "model" / "upsampler").exists()


def test_an_upsampler_that_is_given_travels_with_the_model(whole, tmp_path, tracking):
    home, shard, train, _ = whole
    folder = output(home, train) / "model" / "upsampler" / "language_model"
    receipt = run_train(tmp_path, tracking, shard, images=8, upsampler={"model": str(folder)})
    made = output(tmp_path, receipt) / "model" / "upsampler" / "language_model" / "model.safetensors"
    assert made.read_bytes() == (folder / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"upsampler '.*/none' cannot be loaded \(.*\); give a folder"):
        run_train(tmp_path, tracking, shard, images=8, upsampler={"model": str(tmp_path / "none")})


def test_the_shards_of_several_snapshots_are_one_training_set(tmp_path, tracking):
    snapshots = [shards(tmp_path / name, name, samples) for name, samples in (("one", 12), ("two", 20))]
    receipt = run_train(tmp_path, tracking, *snapshots, images=16)
    assert receipt.counts.kept == 32
    tags = Tracker(tmp_path, tracking).client.get_run(receipt.info["mlflow_run"]).data.tags
    assert [tags[f"dataset.shard-{n}"] for n in (0, 1)] == [shard.digest for shard in snapshots]


def test_a_teacher_of_another_process_and_prediction_trains_and_is_distilled(whole, tmp_path, tracking):
    given, diffusion = whole[1], {"process": "ddpm", "prediction": "velocity"}
    sampler = {"name": "ddim", "eta": 0.5}
    train = run_train(tmp_path, tracking, given, diffusion=diffusion, sampler=sampler)
    teacher = Input("train", str(output(tmp_path, train)), train.digest, train)
    inputs = {"train": (teacher,), "shard": (given,)}
    student = run(tmp_path, DISTILL, tracking, inputs)
    with pytest.raises(InputError, match="mean_flow averages the velocity of rectified flow"):
        run(tmp_path, DISTILL, tracking, inputs, consistency={"method": "mean_flow"})
    for receipt in (train, student):
        generator = Generator.load(output(tmp_path, receipt) / "model", device="cpu")
        assert generator.model.card.diffusion.model_dump() == diffusion
        assert generator.sampler.name == ("ddim" if receipt is train else "consistency")
        assert generator.generate(["all red"], steps=2).shape == (1, 8, 8, 3)


def test_a_config_from_before_there_were_samplers_has_its_fingerprint():
    """Their defaults are left out of what is hashed, and what is not the default is in it."""
    before = TRAIN.config_type().model_dump(mode="json")
    assert "sampler" not in before and "times" not in before["flow"]
    changed = TRAIN.config_type(sampler={"name": "heun"}, flow={"times": "uniform"}).model_dump(mode="json")
    assert changed["sampler"]["name"] == "heun" and changed["flow"]["times"] == "uniform"
    with pytest.raises(ValidationError, match="sampler consistency is for a distilled model"):
        TRAIN.config_type(sampler={"name": "consistency"})


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"text": {"model": "no/such/encoder"}},
            InputError,
            "text encoder 'no/such/encoder' cannot be loaded",
        ),
        (
            {"network": {**NETWORK, "channels": 1}},
            InputError,
            "train.network.channels is 1, and autoencoder pixels has 3; set it to that",
        ),
        (
            {"optimizer": {"learning_rate": 1e30, "warmup_images": 0}, "precision": "no"},
            StageFailed,
            "train: training diverged at .* images .*; lower the learning rate",
        ),
    ],
)
def test_what_the_user_can_set_right_is_one_line(tmp_path, tracking, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        run_train(tmp_path, tracking, shards(tmp_path / "shards"), **settings)
    assert "\n" not in str(caught.value)
    (failed,) = tmp_path.rglob("failed.json")
    assert not list(failed.parent.glob("model"))


def test_a_moved_home_is_refused_before_anything_is_fitted(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert Tracker(tmp_path / "home").experiment
    moved = (tmp_path / "home").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match="this HOME was moved or copied"):
        run_train(moved, None, shards(tmp_path / "shards"))
    assert not [path for path in moved.glob("train/*/scratch/*") if "upsampler" in path.name]
