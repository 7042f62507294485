"""An SD3 pipeline of diffusers as a Model: its images are the pipeline's, through our denoiser."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from components.conditioning.sd3_text import T5_TOKENS
from components.diffusion.samplers import noise_of
from components.errors import InputError
from components.generation.diffusers_pipeline import load_pipeline, load_teacher
from components.generation.generator import Generator
from components.generation.model_folder import Model, load_model, save_model
from components.randomness import sample_seeds
from tests.small_sd3 import save_sd3, small_sd3

PROMPTS = ["all red", "", "blue everywhere"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return Path(save_sd3(tmp_path_factory.mktemp("sd3")))


@pytest.fixture(scope="module")
def teacher(folder) -> Model:
    return load_teacher(folder)


def test_texts_are_encoded_as_the_pipeline_encodes_them(folder, teacher):
    with torch.no_grad():
        tokens, _, pooled, _ = small_sd3().encode_prompt(
            PROMPTS, None, None, do_classifier_free_guidance=False
        )
    text = teacher.encoder(PROMPTS)
    assert text.mask.all() and text.values.shape == (3, 1 + 8 + T5_TOKENS, 24)
    torch.testing.assert_close(text.values[:, 1:], tokens)
    torch.testing.assert_close(text.values[:, 0, :16], pooled)


def test_guided_images_are_the_pipeline_s(teacher):
    """diffusers walks sigmas 1 to 1 / steps evenly, then 0, as even_times does, where its shift is 1."""
    noise = noise_of(sample_seeds(3, len(PROMPTS)), (4, 4, 4), "noise")
    theirs = small_sd3()
    theirs.set_progress_bar_config(disable=True)
    sigmas = np.linspace(1.0, 0.25, 4)
    images = theirs(
        PROMPTS, sigmas=sigmas, guidance_scale=3.0, latents=noise, height=16, width=16, output_type="np"
    )
    ours = Generator(teacher).generate(PROMPTS, steps=4, guidance=3.0, seed=3)
    assert ours.std() > 10
    assert np.abs(ours / 255 - images.images).max() < 1.5 / 255


def test_it_is_saved_as_any_model_and_needs_the_pipeline_no_more(folder, tmp_path):
    source = Path(shutil.copytree(folder, tmp_path / "source"))
    teacher, saved = load_pipeline(source), tmp_path / "model"
    saved.mkdir()
    expected = Generator(teacher).generate(PROMPTS, steps=2)
    save_model(saved, teacher)
    shutil.rmtree(source)
    loaded = load_model(saved)
    assert np.array_equal(Generator(loaded).generate(PROMPTS, steps=2), expected)
    assert loaded.card == teacher.card and (loaded.card.network, loaded.image_size) == ("sd3", 16)
    for one, two in ((loaded.encoder, teacher.encoder), (loaded.autoencoder, teacher.autoencoder)):
        assert one.identity == two.identity


def test_what_is_no_sd3_pipeline_is_one_line(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    with pytest.raises(InputError, match="is a FluxPipeline; the pipelines that can be distilled") as caught:
        load_teacher(copy)
    assert "\n" not in str(caught.value)
    (copy / "model_index.json").write_text(json.dumps(index))
    for part, message in (("text_encoder_3", "the text encoders of"), ("transformer", "the transformer of")):
        shutil.rmtree(copy / part)
        with pytest.raises(InputError, match=f"{message} '.*' cannot be loaded"):
            load_teacher(copy)
        shutil.copytree(folder / part, copy / part)
