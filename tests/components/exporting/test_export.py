"""Exported models, read as others read them, against the Generator."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from components.conditioning.config import AutoencoderConfig
from components.conditioning.convolutional_autoencoder import ConvolutionalAutoencoder
from components.conditioning.text import LearnedText, TextConfig
from components.diffusion.config import DiffusionConfig
from components.diffusion.dit import DiT, DiTConfig
from components.diffusion.samplers import get_noise
from components.errors import InputError
from components.exporting import onnx_format
from components.exporting.export import export_model
from components.generation.generator import Generator
from components.generation.model_folder import Model, ModelCard, load_model, save_model
from tests.small_model import PROMPTS

CAPTIONS = [*PROMPTS, ""]
SEED = 5
LOAD = """
import sys
import numpy as np
from diffusers import DiffusionPipeline

folder, images = sys.argv[1:3]
pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True).to("cpu")
settings = {"seed": int(sys.argv[3]), "num_inference_steps": 3, "guidance_scale": 2.0}
found = pipe(sys.argv[4:], output_type="np", **settings).images
assert np.array_equal(np.asarray(pipe(sys.argv[4:], **settings).images[1]) / np.float32(255), found[1])
assert not any(name.partition(".")[0] == "components" for name in sys.modules)
np.save(images, found)
"""


def write_latent_model(folder: Path, kind: str) -> Path:
    """A model with an autoencoder, all weights random."""
    folder.mkdir()
    torch.manual_seed(1)
    encoder = LearnedText.fit(PROMPTS, vocabulary=300, max_length=32)
    autoencoder = AutoencoderConfig(model="fit", channels=4, widths=(4, 8), decoder_blocks=1)
    sizes = {"image_size": 4, "channels": 4, "patch": 2, "width": 16, "depth": 1, "heads": 2}
    dit = DiTConfig(**sizes, text_length=32, vocabulary=encoder.vocabulary)
    card = ModelCard(
        kind=kind,
        dit=dit,
        diffusion=DiffusionConfig(prediction="preconditioned"),
        text=TextConfig(max_length=32),
        autoencoder=autoencoder,
        steps=1,
        guidance=3.0,
        images_seen=0,
    )
    network, images = DiT(dit), ConvolutionalAutoencoder(autoencoder)
    for weights in (*network.parameters(), *images.parameters()):
        torch.nn.init.normal_(weights, std=0.3)
    save_model(folder, Model(network.eval(), encoder, card, None, images))
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_diffusers_loads_a_pipeline_that_needs_no_straightshot_and_gives_the_generator_s_images(tmp_path):
    model, out, images = write_latent_model(tmp_path / "model", "flow"), tmp_path / "out", tmp_path / "i.npy"
    (model / "upsampler").mkdir()  # it stays behind
    (model / "upsampler" / "model.safetensors").touch()
    export_model(model, "diffusers", out)
    weights = {name for name in files(out) if not name.endswith((".py", ".json", ".md"))}
    assert weights == {"model/model.safetensors", "model/autoencoder.safetensors"}
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOAD, str(out), str(images), str(SEED), *CAPTIONS]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    here = Generator(load_model(model, upsampler=False))
    expected = here.generate(CAPTIONS, steps=3, seed=SEED, guidance=2.0)
    np.testing.assert_allclose(np.load(images), expected / 255, atol=1e-5)
    assert expected.std() > 10


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> tuple[Path, Path]:
    """A student's model folder, and its export to ONNX."""
    folder = tmp_path_factory.mktemp("onnx")
    model = write_latent_model(folder / "model", "consistency")
    export_model(model, "onnx", folder / "out")
    return model, folder / "out"


@pytest.mark.parametrize("batch", [1, 3])
def test_onnxruntime_gives_the_generator_s_images_from_the_tokenizer_and_the_noise(graph, batch):
    import onnxruntime

    folder, out = graph
    assert files(out) == {"model.onnx", "tokenizer.json", "README.md"}
    captions = CAPTIONS[:batch]
    encoded = Tokenizer.from_file(str(out / "tokenizer.json")).encode_batch(captions)
    feed = {
        "noise": get_noise((batch, 4, 4, 4), SEED, "noise").numpy(),
        "text": np.array([row.ids for row in encoded]),
        "mask": np.array([row.attention_mask for row in encoded], bool),
    }
    (found,) = onnxruntime.InferenceSession(out / "model.onnx").run(None, feed)
    expected = Generator.load(folder, "cpu").generate(captions, seed=SEED)
    scaled = ((found + 1) * 127.5).transpose(0, 2, 3, 1)
    assert np.abs(scaled - expected).max() <= 0.5 + 127.5 * 1e-4
    assert expected.std() > 10


def test_the_exported_tokenizer_gives_the_model_s_own_ids_of_long_and_short_texts(graph):
    folder, out = graph
    encoder, tokenizer = load_model(folder).encoder, Tokenizer.from_file(str(out / "tokenizer.json"))
    for text in ("", "a red circle", "a blue square above " * 30):
        expected = encoder([text])
        encoded = tokenizer.encode(text)
        assert encoded.ids == expected.values[expected.mask].tolist()


def test_only_a_student_becomes_a_graph(tmp_path):
    teacher = write_latent_model(tmp_path / "model", "flow")
    with pytest.raises(InputError, match=r"^an ONNX graph .*; export a student, or --to diffusers$"):
        export_model(teacher, "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [teacher]  # nothing half-written


def test_a_missing_package_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_format, "find_spec", lambda name: name != "onnxscript" or None)
    with pytest.raises(InputError, match=r"^an export to ONNX needs onnxscript, not .*\[onnx\]"):
        export_model(tmp_path / "no model", "onnx", tmp_path / "out")


def test_a_folder_with_something_in_it_is_refused_and_stays(tmp_path):
    folder = write_latent_model(tmp_path / "model", "flow")
    before = files(folder)
    with pytest.raises(InputError, match=r"model is there already; name a folder with -o that is empty"):
        export_model(folder, "diffusers", folder)
    assert files(folder) == before
