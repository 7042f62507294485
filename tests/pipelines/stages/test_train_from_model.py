"""Trainings that start from a model: on from it, LoRA, reflow, and a teacher from elsewhere."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from components.generation.diffusers_pipeline import load_teacher
from components.generation.generator import Generator
from components.generation.model_folder import load_model
from pipelines.errors import ConfigError
from pipelines.execution.progress import Progress
from pipelines.stage import INIT, TEACHER, Input
from pipelines.stages.distill import STAGE as DISTILL
from pipelines.stages.learning import reflow_run
from pipelines.stages.train import STAGE as TRAIN
from pipelines.store.receipts import Receipt
from tests.pipelines.stages.small_trainings import (
    NETWORK,
    TEXT,
    contents,
    interrupted_after,
    output,
    run,
)
from tests.small_sd3 import save_sd3


def run_from(home: Path, tracking: str, whole, **settings) -> Receipt:
    """Train on from the teacher of an undisturbed run, without an upsampler."""
    others_home, shard, train, _ = whole
    initial = Input(INIT, str(output(others_home, train) / "model"), train.digest)
    inputs = {"shard": (shard,), INIT: (initial,)}
    small = {"network": NETWORK, "text": TEXT, "upsampler": {"model": "none"}}
    return run(home, TRAIN, tracking, inputs, init=initial.location, **{**small, **settings})


def test_a_training_from_a_model_starts_with_its_weights_and_its_vocabulary(whole, tmp_path, tracking):
    standing = {"learning_rate": 1e-12, "muon_learning_rate": 0, "warmup_images": 0}
    receipt = run_from(tmp_path, tracking, whole, images=24, optimizer=standing, accumulation=2)
    initial, model = (output(h, r) / "model" for h, r in ((whole[0], whole[2]), (tmp_path, receipt)))
    before, after = (load_model(folder).network.state_dict() for folder in (initial, model))
    for name, weights in before.items():
        torch.testing.assert_close(after[name], weights, rtol=0, atol=1e-7)
    assert (model / "tokenizer.json").read_bytes() == (initial / "tokenizer.json").read_bytes()
    assert load_model(model).card.images_seen == 24
    first, standing_first = (
        json.loads((folder.parent / "curve.json").read_text())[0]["values"]["loss"]
        for folder in (initial, model)
    )
    assert standing_first < first  # of the same 24 images with the same noise, while the initial one learned


def test_an_adapted_model_is_one_of_the_same_weights_but_for_its_blocks_layers(whole, tmp_path, tracking):
    lora = {"rank": 2, "alpha": 4}
    receipt = run_from(tmp_path, tracking, whole, images=24, lora=lora)
    initial, adapted = (
        load_model(output(home, made) / "model").network.state_dict()
        for home, made in ((whole[0], whole[2]), (tmp_path, receipt))
    )
    changed = {name for name in initial if not torch.equal(initial[name], adapted[name])}
    assert changed == {f"blocks.0.{layer}.weight" for layer in ("qkv", "attention_out", "mlp_in", "mlp_out")}
    teacher = Input("train", str(output(tmp_path, receipt)), receipt.digest, receipt)
    student = run(
        tmp_path, DISTILL, tracking, {"train": (teacher,), "shard": (whole[1],)}, images=16, lora=lora
    )
    distilled = load_model(output(tmp_path, student) / "model").network.state_dict()
    assert {name for name in adapted if not torch.equal(adapted[name], distilled[name])} == changed
    with pytest.raises(ValidationError, match=r"lora adapts a model; name it with train\.init"):
        TRAIN.config_type(lora=lora)
    with pytest.raises(ValidationError, match="have weights of their own to train; leave lora out"):
        DISTILL.config_type(lora=lora, start="scratch")


def test_a_training_from_a_model_that_was_interrupted_ends_with_the_same_bytes(
    whole, tmp_path, tracking, monkeypatch
):
    undisturbed = run_from(tmp_path / "undisturbed", tracking, whole)
    monkeypatch.setattr(Progress, "task", interrupted_after(5 * 8))
    with pytest.raises(KeyboardInterrupt):
        run_from(tmp_path / "resumed", tracking, whole)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "resumed").rglob("0*") if path.is_dir()] == [f"{32:012d}"]
    resumed = run_from(tmp_path / "resumed", tracking, whole)
    assert contents(tmp_path / "resumed", resumed) == contents(tmp_path / "undisturbed", undisturbed)


def test_reflow_draws_its_pairs_once_and_ends_with_the_same_bytes_after_an_interrupt(
    whole, tmp_path, tracking, monkeypatch
):
    reflow = {"reflow": {"pairs": 40, "steps": 2}, "images": 64}
    undisturbed = run_from(tmp_path / "undisturbed", tracking, whole, **reflow)
    assert set(undisturbed.info["straightness"]) == {"before", "after"}
    assert load_model(output(tmp_path / "undisturbed", undisturbed) / "model").card.guidance == 1
    monkeypatch.setattr(
        Progress, "task", interrupted_after(44)
    )  # of any task: after the pairs, in the training
    with pytest.raises(KeyboardInterrupt):
        run_from(tmp_path / "resumed", tracking, whole, **reflow)
    monkeypatch.undo()
    assert list((tmp_path / "resumed").rglob("x_0.safetensors"))
    seen: list[str] = []
    monkeypatch.setattr(reflow_run, "euler", lambda *_: seen.append("drawn again"))
    resumed = run_from(tmp_path / "resumed", tracking, whole, **reflow)
    assert not seen
    assert contents(tmp_path / "resumed", resumed) == contents(tmp_path / "undisturbed", undisturbed)


def test_reflow_without_a_flow_to_go_on_from_is_one_line():
    with pytest.raises(ValidationError, match="reflow goes on from a flow; name it with"):
        TRAIN.config_type(reflow={"pairs": 10})
    with pytest.raises(ValidationError, match=r"reflow is of rectified flow, and diffusion\.process is ddpm"):
        TRAIN.config_type(reflow={}, init="champion", diffusion={"process": "ddpm"})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"network": {**NETWORK, "width": 64}}, "network.width is 64, and .* has 32; set it to that"),
        ({"text": {**TEXT, "max_length": 12}}, "text.max_length is 12, and .* has 16; set it to that"),
        ({"diffusion": {"process": "ddpm"}}, "diffusion.process is ddpm, and .* has rectified_flow; set"),
    ],
)
def test_a_config_of_another_network_than_the_initial_model_s_is_refused(
    whole, tmp_path, tracking, setting, message
):
    with pytest.raises(ConfigError, match=rf"^train\.{message}") as caught:
        run_from(tmp_path, tracking, whole, **setting)
    assert "\n" not in str(caught.value)


def test_a_teacher_from_elsewhere_is_distilled_into_a_model_that_needs_it_no_more(whole, tmp_path, tracking):
    """The student is an SD3 transformer, too, and starts from the teacher's weights."""
    home, given, train, _ = whole
    ours = Input("train", str(output(home, train)), train.digest, train)
    theirs = Input(TEACHER, str(save_sd3(tmp_path / "sd3")), "digest")
    settings = {"teacher": theirs.location, "images": 16, "log_images": 8, "activation_checkpointing": True}
    start = load_teacher(tmp_path / "sd3").network.state_dict()
    inputs = {"train": (ours,), "shard": (given,), TEACHER: (theirs,)}
    receipt = run(tmp_path, DISTILL, tracking, inputs, **settings)
    shutil.rmtree(tmp_path / "sd3")
    generator = Generator.load(output(tmp_path, receipt) / "model", device="cpu")
    card, learned = generator.model.card, generator.model.network.state_dict()
    assert (card.kind, card.network, card.steps, card.images_seen) == ("consistency", "sd3", 1, 16)
    changes = [(learned[name] - start[name]).abs().max().item() for name in start]
    assert 0 < max(changes) < 0.1
    assert generator.generate(["all red", ""]).shape == (2, 16, 16, 3)
