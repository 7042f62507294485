"""Latents and texts' features in the shards: made once, trained on to the bit, or refused."""

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.conditioning.autoencoder import from_pixels
from components.conditioning.config import TextConfig
from components.conditioning.diffusers_autoencoder import DiffusersAutoencoder
from components.conditioning.text import LearnedText, load_pretrained_text
from components.errors import InputError
from components.shards.decode import decode_square
from components.shards.index import INDEX_NAME, load_index
from components.shards.reader import read_split
from components.shards.stored_features import Features, unpack_latent, unpack_text
from components.shards.writer import LATENT_EXTENSION, TEXT_EXTENSION
from pipelines.config import load_config
from pipelines.errors import ConfigError, StageFailed
from pipelines.stage import Input
from pipelines.stages.learning.training_batches import batches, caption_loader
from pipelines.stages.shard import STAGE, ShardConfig
from pipelines.stages.train import STAGE as TRAIN
from pipelines.store.receipts import Receipt
from tests.pipelines.one_by_one import OneByOne
from tests.pipelines.stages.small_trainings import run_train
from tests.pipelines.stages.test_shard import captioned, contents, of_many_shapes, output, run
from tests.small_autoencoders import save_kl
from tests.small_text_encoders import save_llama

SIZE = 16
NETWORK = {"image_size": 4, "channels": 4, "patch": 2, "width": 32, "depth": 1, "heads": 2}
TRAINING = {"images": 16, "network": NETWORK, "upsampler": {"model": "none"}}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {"kl": save_kl(folder / "kl"), "llama": save_llama(folder / "llama")}


def config(models: dict[str, str], **changes) -> ShardConfig:
    precomputed = {
        "latents": {"model": models["kl"], "image_size": SIZE},
        "texts": {"model": models["llama"], "max_length": 12, "dtype": "bfloat16"},
    }
    cut = {"samples_per_tar": 20, "tars_per_group": 2, "holdout_fraction": 0.1}
    return ShardConfig.model_validate({**cut, **precomputed, **changes})


@pytest.fixture(scope="module")
def recaption(tmp_path_factory) -> Input:
    return captioned(tmp_path_factory.mktemp("recaption"), parts=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory, models, recaption) -> tuple[Path, Receipt]:
    home = tmp_path_factory.mktemp("home")
    return home, run(home, recaption, config(models))


def shard_input(home: Path, receipt: Receipt) -> Input:
    return Input("shard", str(output(home, receipt)), receipt.digest, receipt)


def test_every_sample_has_what_the_encoders_make_of_it(made, models):
    home, receipt = made
    index = output(home, receipt) / INDEX_NAME
    listed = load_index(index)
    autoencoder = DiffusersAutoencoder.load(models["kl"])
    text = load_pretrained_text(TextConfig(model=models["llama"], max_length=12, dtype="bfloat16"))
    assert listed.latents == autoencoder.stored(SIZE) and listed.texts == text.stored
    assert (listed.latents.model, listed.latents.size, listed.texts.dtype) == (models["kl"], SIZE, "bfloat16")
    assert receipt.info["features"] == {
        "latents": listed.latents.model_dump(),
        "texts": listed.texts.model_dump(),
    }
    samples = [*read_split(index, "train"), *read_split(index, "holdout")]
    assert len(samples) == 45
    for sample in samples[::9]:
        latent = autoencoder.encode(from_pixels(decode_square(sample.image, SIZE)[None]))[0]
        stored = unpack_latent(sample.features[LATENT_EXTENSION], "float32", "")
        torch.testing.assert_close(stored, latent)
        for kind, column in (("alt", "alt_text"), ("short", "caption_short"), ("long", "caption_long")):
            again = unpack_text(sample.features[TEXT_EXTENSION], kind, "bfloat16", "")
            expected = text([sample.meta[column]]).values[0]
            torch.testing.assert_close(again, expected, atol=0.02, rtol=0.02)


def test_they_change_nothing_else_and_are_the_same_bytes_again(made, models, recaption, tmp_path):
    home, receipt = made
    backwards = run(tmp_path, recaption, config(models), engine=OneByOne(backwards=True))
    assert contents(tmp_path, backwards) == contents(home, receipt)
    plain = run(tmp_path, recaption, config(models, latents=None, texts=None))
    unchanged = {"samples_per_tar": 20, "tars_per_group": 2, "holdout_fraction": 0.1, "seed": 0}
    assert plain.config == unchanged  # what is fingerprinted without any is what it always was
    index, without = (output(h, r) / INDEX_NAME for h, r in ((home, receipt), (tmp_path, plain)))
    for split in ("train", "holdout"):
        bare = [replace(sample, features={}) for sample in read_split(index, split)]
        assert bare == list(read_split(without, split))


def test_a_training_on_them_sees_what_it_would_compute_to_the_bit(made, models):
    home, receipt = made
    index = output(home, receipt) / INDEX_NAME
    autoencoder = DiffusersAutoencoder.load(models["kl"])
    text = load_pretrained_text(TextConfig(model=models["llama"], max_length=12, dtype="bfloat16"))
    loader = caption_loader([index], TRAIN.config_type(batch_size=8), SIZE, 0, 1)
    reading = list(islice(batches(loader, text, autoencoder, 0), 8))
    assert text.cache.misses == 0
    loader.stored = Features()
    for read, computed in zip(reading, batches(loader, text, autoencoder, 0), strict=False):
        assert read["keys"] == computed["keys"] and read["x_0"].shape == (8, 4, 4, 4)
        assert all(torch.equal(read[name], computed[name]) for name in ("x_0", "text", "mask"))
    assert text.cache.misses > 0


def test_latents_of_a_bucket_are_of_its_size(models, tmp_path):
    changes = {"texts": None, "buckets": ["16x16", "24x16"]}
    receipt = run(tmp_path, of_many_shapes(tmp_path / "in", parts=3), config(models, **changes))
    autoencoder, text = DiffusersAutoencoder.load(models["kl"]), LearnedText.fit(["a"], 300, 8)
    index = output(tmp_path, receipt) / INDEX_NAME
    loader = caption_loader([index], TRAIN.config_type(batch_size=8), SIZE, 0, 1)
    reading = list(islice(batches(loader, text, autoencoder, 0), 8))
    assert {tuple(read["x_0"].shape) for read in reading} == {(8, 4, 4, 4), (8, 4, 4, 6)}
    loader.stored = Features()
    for read, computed in zip(reading, batches(loader, text, autoencoder, 0), strict=False):
        assert read["keys"] == computed["keys"] and torch.equal(read["x_0"], computed["x_0"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"text": {"model": "llama", "max_length": 8}},
            "the texts in the shards are of .*, and train.text is",
        ),
        (
            {"network": {**NETWORK, "image_size": 8}},
            r"the latents in the shards .*size 16\), and .*size 32\)",
        ),
        (
            {"autoencoder": {"model": "kl", "dtype": "bfloat16"}},
            r"float32, size 16\), .* bfloat16, size 16\)",
        ),
    ],
)
def test_a_training_that_wants_other_features_is_refused_before_it_begins(
    made, models, tmp_path, tracking, changes, message
):
    encoders = {
        "autoencoder": {"model": "kl"},
        "text": {"model": "llama", "max_length": 12, "dtype": "bfloat16"},
    }
    settings = {**TRAINING, **encoders, **changes}
    for name in encoders:
        settings[name] = {**settings[name], "model": models[settings[name]["model"]]}
    with pytest.raises(InputError, match=message) as caught:
        run_train(tmp_path, tracking, shard_input(*made), **settings)
    assert "\n" not in str(caught.value)


def test_an_encoder_that_changed_since_the_first_tars_is_refused(models, recaption, tmp_path):
    """As where a run was killed in between, what is at a path may be another model by the next."""

    class Killed(OneByOne):
        def map_parts(self, *_, **__):
            raise KeyboardInterrupt

    copy = Path(shutil.copytree(models["kl"], tmp_path / "kl"))
    changed = config(models, latents={"model": str(copy), "image_size": SIZE}, texts=None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "home", recaption, changed, engine=Killed())
    weights = copy / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["encoder.conv_in.bias"] += 1
    save_file(state, weights)
    with pytest.raises(
        StageFailed, match="an encoder of its config has changed since tars were made with it"
    ):
        run(tmp_path / "home", recaption, changed)


def test_an_image_that_does_not_decode_is_a_reject(models, tmp_path):
    torn = b"\x89PNG\r\n\x1a\n" + bytes(40)
    receipt = run(
        tmp_path / "home", captioned(tmp_path / "in", parts=2, image=torn), config(models, texts=None)
    )
    assert receipt.counts.as_dict() == {"in": 30, "kept": 29, "rejected": 1, "errored": 0}
    (path,) = output(tmp_path / "home", receipt).glob("rejects/*.parquet")
    assert [reject["reason"] for reject in pq.read_table(path).to_pylist()] == ["image_broken"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"latents": {"model": "KL", "image_size": 10}},
            "shard.latents.image_size is 10, and .* multiple of 4",
        ),
        (
            {"latents": {"model": "no/such", "image_size": 16}},
            "autoencoder 'no/such' is neither a folder nor",
        ),
        ({"texts": {"model": "KL"}}, "text encoder '.*kl' cannot be loaded"),
    ],
)
def test_encoders_that_do_not_serve_are_refused_before_any_tar(models, recaption, tmp_path, changes, message):
    for settings in changes.values():
        settings["model"] = settings["model"].replace("KL", models["kl"])
    with pytest.raises(InputError, match=message) as caught:
        run(tmp_path, recaption, config(models, **changes))
    assert "\n" not in str(caught.value) and not list(tmp_path.rglob("*.tar"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("shard.latents.model=fit", "'fit' has no latents before the training"),
        ("shard.texts.model=learned", "a learned vocabulary has no features"),
    ],
)
def test_what_cannot_be_precomputed_is_a_config_error(override, message):
    overrides = [override] + (["shard.latents.image_size=64"] if "latents" in override else [])
    with pytest.raises(ConfigError, match=message):
        load_config("demo", overrides)


def test_a_run_s_config_has_models_by_their_absolute_paths(models, monkeypatch):
    monkeypatch.chdir(Path(models["kl"]).parent)
    made = load_config(
        "demo",
        ["shard.latents={model: kl, image_size: 16}", "train.autoencoder.model=kl", "train.text.model=llama"],
    )
    assert made.shard.latents.model == made.train.autoencoder.model == models["kl"]
    assert made.train.text.model == models["llama"]
    assert STAGE.config_type().model_dump().keys() == {
        "seed", "samples_per_tar", "tars_per_group", "holdout_fraction",
    }  # fmt: skip


@pytest.mark.parametrize("preset", ["gpu-web", "cluster-web"])
def test_a_preset_precomputes_what_its_training_wants(preset):
    config = load_config(preset)
    latents, autoencoder = config.shard.latents, config.train.autoencoder
    named = [(latents.model, latents.revision, latents.dtype)]
    assert named == [(autoencoder.model, autoencoder.revision, autoencoder.dtype)]
    assert config.shard.texts == config.train.text
    assert latents.image_size == 8 * config.train.network.image_size  # of an SD autoencoder
    assert config.evaluate.domain == "open"
