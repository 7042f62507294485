"""Fitting a captioner: it learns its captions, and loads as any pretrained VLM does."""

import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationMixin, ProcessorMixin

from components.captioning.captioner import Captioner
from components.captioning.config import CaptionerFitConfig, SamplingConfig
from components.captioning.fit import fit_captioner
from components.captioning.kinds import LONG, LONG_PROMPT, SHORT, SHORT_PROMPT, CaptionKind
from components.corpus.labelled import LabelledImage
from components.training.config import OptimizerConfig, TrainingConfig

PROMPTS = (SHORT_PROMPT, LONG_PROMPT)
COLOURS = {"red": (230, 20, 30), "blue": (30, 60, 235), "green": (20, 165, 45), "white": (250, 250, 250)}
RATES = OptimizerConfig(learning_rate=2e-3, muon_learning_rate=2e-2, warmup_images=64)


def config(images: int) -> CaptionerFitConfig:
    training = TrainingConfig(images=images, batch_size=8, optimizer=RATES, ema_halflife_images=0)
    return CaptionerFitConfig(
        image_size=32,
        channels=(8, 16, 32, 32),
        width=64,
        text_depth=2,
        vocabulary=320,
        tower_fraction=0.2,
        training=training,
    )


def two_colours(left: str, right: str, side: int = 48) -> Image.Image:
    pixels = np.empty((side, side, 3), np.uint8)
    pixels[:, : side // 2], pixels[:, side // 2 :] = COLOURS[left], COLOURS[right]
    return Image.fromarray(pixels)


def labelled() -> list[LabelledImage]:
    """Every ordered pair of colours, side by side."""
    records = []
    for left in COLOURS:
        for right in COLOURS:
            buffer = io.BytesIO()
            two_colours(left, right).save(buffer, "PNG")
            records.append(
                LabelledImage(buffer.getvalue(), f"{left} {right}", f"{left} to the left of {right}")
            )
    return records


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("captioner")
    fit_captioner(labelled(), path, config(3072), prompts=PROMPTS, seed=0)
    return path


@pytest.fixture(scope="module")
def captioner(folder: Path) -> Captioner:
    return Captioner.load(str(folder))


@pytest.mark.parametrize(("prompt", "number"), [(SHORT_PROMPT, 0), (LONG_PROMPT, 1)])
def test_it_answers_each_prompt_with_the_caption_it_was_trained_on(captioner, prompt, number):
    records = labelled()
    captions = captioner.caption([record.open() for record in records], CaptionKind("any", prompt, 16))
    right = sum(text == record.captions[number] for text, record in zip(captions, records, strict=True))
    assert right >= 15, captions


def test_it_loads_as_a_pretrained_model_does(folder):
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert isinstance(processor, ProcessorMixin)
    assert isinstance(model, GenerationMixin)
    assert not list(folder.glob("*.bin")) and not list(folder.glob("*.pt")), "weights are safetensors only"
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": two_colours("red", "blue")},
                {"type": "text", "text": SHORT_PROMPT},
            ],
        }
    ]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    tokens = model.generate(**inputs, max_new_tokens=16)
    captions = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert captions == Captioner(model, processor).caption(
        [two_colours("red", "blue")], replace(SHORT, max_tokens=16)
    )


def varied(folder: Path, batch_size: int, seed: int = 0) -> Captioner:
    """The captioner at a high temperature, so that its captions vary."""
    captioner = Captioner.load(
        str(folder), batch_size=batch_size, sampling=SamplingConfig(min_p=0.001, seed=seed)
    )
    captioner.model.lm_head.weight.data *= 0.25
    return captioner


def test_a_sampled_caption_depends_on_its_key_not_on_its_batch(folder):
    images = [two_colours(*pair) for pair in itertools.product(COLOURS, COLOURS)]
    keys = [f"key {n}" for n in range(len(images))]
    kind = replace(LONG, max_tokens=12)
    captions = varied(folder, 16).caption(images, kind, keys)
    assert len(set(captions)) > 8, "they must vary for the rest to mean anything"
    for order, batch_size in (([*range(16)], 5), ([*reversed(range(16))], 16), ([3, 11], 1)):
        again = varied(folder, batch_size).caption([images[n] for n in order], kind, [keys[n] for n in order])
        assert again == [captions[n] for n in order]
    assert varied(folder, 16).caption(images, kind, [f"other {key}" for key in keys]) != captions
    assert varied(folder, 16).caption(images, replace(kind, name="other"), keys) != captions
    assert varied(folder, 16, seed=1).caption(images, kind, keys) != captions


def test_with_a_min_p_of_one_captions_are_greedy(folder, captioner):
    images = [two_colours("red", "blue"), two_colours("green", "white")]
    greedy = Captioner.load(str(folder), sampling=SamplingConfig(min_p=1.0, seed=7))
    kind = replace(LONG, max_tokens=16)
    assert greedy.caption(images, kind, ["a", "b"]) == captioner.caption(images, kind)
    almost = Captioner.load(str(folder), sampling=SamplingConfig(min_p=1 - 1e-6))
    assert almost.caption(images, kind, ["a", "b"]) == captioner.caption(images, kind)


@pytest.mark.parametrize("keys", [None, ["a"]])
def test_a_sampled_caption_needs_a_key_for_each_image(folder, keys):
    with pytest.raises(ValueError, match=r"2 images and [01] keys"):
        varied(folder, 2).caption([two_colours("red", "blue")] * 2, LONG, keys)


def test_an_image_of_any_size_will_do(folder):
    images = [two_colours("red", "blue", side) for side in (20, 48, 400)]
    images.append(two_colours("red", "blue").resize((300, 20)))
    captions = Captioner.load(str(folder), batch_size=3).caption(images, replace(LONG, max_tokens=16))
    assert captions == ["red to the left of blue"] * 4


def test_a_caption_stops_at_its_limit(captioner):
    (caption,) = captioner.caption([two_colours("red", "blue")], replace(LONG, max_tokens=2))
    assert len(caption.split()) <= 2
    assert captioner.caption([], replace(LONG, max_tokens=2)) == []


def test_what_is_no_captioner_is_named_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="image-text-to-text") as error:
        Captioner.load(str(tmp_path))
    assert "\n" not in str(error.value)


def test_the_fit_is_a_function_of_its_arguments(tmp_path):
    torch.set_num_threads(1)
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        fit_captioner(labelled(), tmp_path / name, config(32), prompts=PROMPTS, seed=seed)
        weights.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert weights[0] == weights[1]
    assert weights[0]["model.safetensors"] != weights[2]["model.safetensors"]
