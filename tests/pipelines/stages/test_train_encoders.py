"""What a training sees its images and captions through: pretrained encoders, frozen features, devices."""

import shutil
from itertools import islice
from pathlib import Path

import torch
from accelerate import PartialState

from components.conditioning.autoencoder import PixelAutoencoder
from components.conditioning.text import FrozenText, LearnedText
from components.generation.generator import Generator
from components.generation.model_folder import load_model
from components.shards.index import INDEX_NAME
from pipelines.stage import INIT, Input
from pipelines.stages.learning.training_batches import batches, caption_loader
from pipelines.stages.train import STAGE as TRAIN
from tests.pipelines.stages.small_trainings import (
    COLOURS,
    NETWORK,
    TRAINING,
    output,
    run,
    run_train,
    shards,
)
from tests.small_autoencoders import save_kl


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
    given = shards(tmp_path / "shards")
    receipt = run_train(tmp_path, tracking, given, **encoders)
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
    # From the model's folder alone another training goes on, and its autoguide, too.
    inputs = {
        "shard": (given,),
        INIT: (Input(INIT, str(output(tmp_path, receipt) / "model"), receipt.digest),),
    }
    more = {"images": 8, "autoguide": {"width": 16, "depth": 1, "heads": 1, "images": 8}}
    settings = {**encoders, **more, "init": inputs[INIT][0].location, "upsampler": {"model": "none"}}
    further = run(tmp_path / "further", TRAIN, tracking, inputs, **settings)
    assert load_model(output(tmp_path / "further", further) / "model").autoguide.config.text_features == 16


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
