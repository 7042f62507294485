"""The train and distill stages on tiny shards: what they leave, and that a SIGKILL changes no byte of it."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from PIL import Image
from pydantic import ValidationError

from components.conditioning.autoencoder import PixelAutoencoder
from components.conditioning.text import FrozenText, LearnedText
from components.diffusion.dit import DiT
from components.errors import InputError
from components.generation.diffusers_pipeline import load_teacher
from components.generation.generator import Generator
from components.generation.model_folder import load_model
from components.randomness import seeded_weights
from components.shards.index import INDEX_NAME, Shard, ShardIndex
from components.shards.writer import Sample, write_tar
from components.upsampling.prompt_upsampler import unchanged
from pipelines.errors import ConfigError, StageFailed
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.registry.mlflow_store import Tracker
from pipelines.stage import INIT, TEACHER, Input, run_stage
from pipelines.stages.distill import STAGE as DISTILL
from pipelines.stages.learning import reflow_run
from pipelines.stages.learning.training_run import batches, caption_loader
from pipelines.stages.train import STAGE as TRAIN
from pipelines.store.faults import FAULT_VARIABLE
from pipelines.store.receipts import Receipt
from tests.small_autoencoders import save_kl
from tests.small_sd3 import save_sd3

COLOURS = {"red": (220, 30, 30), "green": (20, 160, 60), "blue": (30, 60, 220), "grey": (128, 128, 128)}
SAMPLES = 36
TRAINING = {
    "images": 12 * 8,
    "batch_size": 8,
    "checkpoint_images": 4 * 8,
    "log_images": 3 * 8,
    "ema_halflife_images": 30,
}
NETWORK = {"image_size": 8, "patch": 4, "width": 32, "depth": 1, "heads": 2}
TEXT = {"vocabulary": 300, "max_length": 16}
UPSAMPLER = {
    "width": 16,
    "depth": 1,
    "heads": 1,
    "vocabulary": 300,
    "training": {"images": 48, "batch_size": 8, "checkpoint_images": 16, "ema_halflife_images": 0},
}
UPSAMPLER_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip
FAULTS = (
    "upsampler.checkpoint.before_rename:2",
    "train.checkpoint.before_rename:2",
    "train.folder.before_rename",
    "distill.checkpoint.before_rename:2",
)


def shards(folder: Path, name: str = "shard", samples: int = SAMPLES) -> Input:
    """An output as the shard stage leaves it: two tars of plain colours, and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for number in range(2):
        rows = [sample(f"{name} {i}") for i in range(number, samples, 2)]
        stream = io.BytesIO()
        write_tar(stream, rows)
        data = stream.getvalue()
        tar = f"train-{number:05d}.tar"
        (folder / tar).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        listed.append(Shard(name=tar, split="train", bytes=len(data), sha256=sha256, samples=len(rows)))
    index = ShardIndex(shards=tuple(listed)).to_json()
    (folder / INDEX_NAME).write_text(index)
    return Input("shard", str(folder), hashlib.sha256(index.encode()).hexdigest())


def sample(name: str) -> Sample:
    colour = list(COLOURS)[int(name.rpartition(" ")[2]) % len(COLOURS)]
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), COLOURS[colour], np.uint8)).save(stream, "PNG")
    meta = {
        "alt_text": f"{colour}!",
        "caption_short": f"all {colour}",
        "caption_long": f"{colour}, everywhere",
    }
    return Sample(hashlib.sha256(name.encode()).hexdigest()[:32], stream.getvalue(), "png", meta)


def run(home: Path, stage, tracking: str, inputs: dict[str, tuple[Input, ...]], **settings) -> Receipt:
    return run_stage(
        stage,
        stage.config_type(**{**TRAINING, **settings}),
        inputs,
        home=home,
        snapshot="default",
        engine=Engine(),
        progress=Progress(quiet=True),
        tracking_uri=tracking,
    )


def run_train(home: Path, tracking: str, *snapshots: Input, **settings) -> Receipt:
    small = {"network": NETWORK, "text": TEXT, "upsampler": UPSAMPLER}
    return run(home, TRAIN, tracking, {"shard": snapshots}, **{**small, **settings})


def run_both(home: Path, tracking: str, shard: Input) -> tuple[Receipt, Receipt]:
    train = run_train(home, tracking, shard)
    teacher = Input("train", str(output(home, train)), train.digest, train)
    settings = {"consistency": {"intervals": 4}}
    return train, run(home, DISTILL, tracking, {"train": (teacher,), "shard": (shard,)}, **settings)


def output(home: Path, receipt: Receipt) -> Path:
    return home / receipt.stage / receipt.fingerprint


def contents(home: Path, receipt: Receipt) -> dict[str, bytes]:
    return {entry.path: (output(home, receipt) / entry.path).read_bytes() for entry in receipt.files}


@pytest.fixture(scope="module")
def tracking(tmp_path_factory) -> str:
    """One MLflow database for the whole module: making one takes longer than these trainings."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tracking) -> tuple[Path, Input, Receipt, Receipt]:
    """HOME of a run that nothing disturbed, the shards, and the two receipts."""
    home = tmp_path_factory.mktemp("whole")
    shard = shards(home / "shards")
    return home, shard, *run_both(home, tracking, shard)


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


@pytest.fixture(scope="module")
def killed(tmp_path_factory, whole, tracking) -> dict[str, Path]:
    """For each fault the HOME that it left: processes of their own, forked from one that has imported all."""
    _, shard, *_ = whole
    homes = {fault: tmp_path_factory.mktemp("killed") for fault in FAULTS}
    script = (
        "import sys; from tests.pipelines.stages import test_train\n"
        "test_train.die(*sys.argv[1:4], dict(zip(sys.argv[4::2], sys.argv[5::2])))"
    )
    pairs = [str(word) for pair in homes.items() for word in pair]
    command = [sys.executable, "-c", script, tracking, shard.location, shard.digest, *pairs]
    subprocess.run(command, cwd=Path(__file__).parents[3], check=True)
    return homes


def die(tracking: str, location: str, digest: str, homes: dict[str, str]) -> None:
    """Run both stages in a HOME each, every time killed at another fault point."""
    import mlflow  # noqa: F401  (once, for all that are forked)
    import torch._dynamo  # noqa: F401  (the optimizers would, each time)

    for fault, home in homes.items():
        if (child := os.fork()) == 0:
            os.environ[FAULT_VARIABLE] = fault
            run_both(Path(home), tracking, Input("shard", location, digest))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"{fault}: {status}"


@pytest.mark.parametrize("fault", FAULTS)
def test_killed_and_run_again_gives_the_same_bytes(killed, whole, tracking, fault):
    home, shard, *receipts = whole
    left = killed[fault]
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


def save_t5(folder: Path) -> str:
    """A tiny T5 encoder in half precision whose tokenizer knows the captions here; returns its path."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = ["<pad>", "</s>", "<unk>", "all", "everywhere", *COLOURS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=16, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5EncoderModel(config).bfloat16().save_pretrained(folder)
    return str(folder)


def test_pretrained_encoders_are_trained_on_and_travel_with_the_model(tmp_path, tracking):
    encoders = {
        "text": {"model": save_t5(tmp_path / "t5"), "max_length": 12},
        "autoencoder": {"model": save_kl(tmp_path / "kl")},
        "network": {**NETWORK, "image_size": 4, "channels": 4, "patch": 2},
        "optimizer": {"learning_rate": 0.02, "warmup_images": 0, "decay_fraction": 0},
    }
    receipt = run_train(tmp_path, tracking, shards(tmp_path / "shards"), **encoders)
    assert receipt.info["encoders"]["latents"]["model"] == str(tmp_path / "kl")
    shutil.rmtree(tmp_path / "t5")
    shutil.rmtree(tmp_path / "kl")
    generator = Generator.load(output(tmp_path, receipt) / "model", device="cpu")
    assert generator.model.network.config.text_features == 16
    assert generator.generate(["all red", ""], steps=2).shape == (2, 16, 16, 3)
    x, t = torch.zeros(1, 4, 4, 4), torch.ones(1)
    encoder, network = generator.model.encoder, generator.model.network
    red, blue = (network(x, t, encoder([caption])) for caption in ("all red", "all blue"))
    assert (red - blue).abs().max() > 1e-3


def test_frozen_features_of_a_resumed_training_are_those_of_one_that_nothing_disturbed(tmp_path):
    """To the bit, though the resumed one's cache is empty and first sees a text in another batch."""
    given, path = shards(tmp_path / "shards"), save_t5(tmp_path / "t5")
    config = TRAIN.config_type(**TRAINING)
    loader = caption_loader([Path(given.location) / INDEX_NAME], config, 8, 0, 1)
    whole = batches(loader, FrozenText(path, 12), PixelAutoencoder(), 0)
    undisturbed = list(islice(whole, 9))
    for start in (1, 4, 8):
        resumed = batches(loader, FrozenText(path, 12), PixelAutoencoder(), start * 8)
        for batch, expected in zip(resumed, undisturbed[start:], strict=False):
            assert batch["keys"] == expected["keys"]
            assert all(torch.equal(batch[name], expected[name]) for name in ("x_0", "text", "mask"))


def test_images_and_captions_are_encoded_on_the_device_of_the_training(tmp_path):
    class Doubling:
        device: torch.device | None = None

        def encode(self, images: torch.Tensor) -> torch.Tensor:
            assert images.device == self.device
            return 2 * images

        def to(self, device: torch.device) -> "Doubling":
            self.device = device
            return self

    given = shards(tmp_path / "shards")
    loader = caption_loader([Path(given.location) / INDEX_NAME], TRAIN.config_type(**TRAINING), 8, 0, 1)
    encoder = LearnedText.fit(["all red, everywhere"], 300, 16)
    pixels, doubled = (
        next(batches(loader, encoder, autoencoder, 0)) for autoencoder in (PixelAutoencoder(), Doubling())
    )
    assert torch.equal(doubled["x_0"], 2 * pixels["x_0"])
    assert pixels["x_0"].abs().max() <= 1 and pixels["x_0"].shape == (8, 3, 8, 8)
    assert pixels["x_0"].device == PartialState().device


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


def interrupted_after(images: int):
    """As Progress.task, with a Ctrl-C after so many images."""

    @contextmanager
    def task(self, name, total, unit):
        done = 0

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal done
            done += n
            if done >= images:
                raise KeyboardInterrupt

        yield advance

    return task


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
