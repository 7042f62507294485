"""A model folder: what was saved comes back, and a folder that is none raises one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.conditioning.config import TextConfig
from components.conditioning.text import LearnedText
from components.diffusion.config import AutoguideCard, DiffusionConfig, DiTConfig, SamplerConfig
from components.diffusion.dit import DiT
from components.errors import InputError
from components.generation.model_folder import (
    AUTOGUIDE_WEIGHTS,
    CARD,
    WEIGHTS,
    Model,
    ModelCard,
    load_model,
    save_model,
)

FILES = (CARD, WEIGHTS, "tokenizer.json")


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    encoder = LearnedText.fit(["a red circle", "a blue square"], 300, 16)
    sizes = {"image_size": 8, "patch": 4, "width": 32, "depth": 1, "heads": 2}
    network = DiT(DiTConfig(vocabulary=encoder.vocabulary, **sizes))
    text = TextConfig(vocabulary=300, max_length=16)
    card = ModelCard(kind="flow", dit=network.config, text=text, steps=2, guidance=None, images_seen=7)
    return Model(network, encoder, card)


def saved(folder: Path, model: Model) -> Path:
    folder.mkdir()
    save_model(folder, model)
    return folder


def test_a_model_comes_back_as_it_was(tmp_path, model):
    folder = saved(tmp_path / "model", model)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    loaded = load_model(folder)
    assert loaded.card == model.card
    weights, others = model.network.state_dict(), loaded.network.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    text, other = model.encoder(["a red star"]), loaded.encoder(["a red star"])
    assert torch.equal(text.values, other.values) and torch.equal(text.mask, other.mask)


def test_the_same_model_is_the_same_bytes(tmp_path, model):
    first, second = saved(tmp_path / "one", model), saved(tmp_path / "other", model)
    again = saved(tmp_path / "again", load_model(first))
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes() == (again / name).read_bytes()


def test_the_card_keeps_process_and_prediction(tmp_path, model):
    diffusion = DiffusionConfig(process="ddpm", prediction="eps")
    card = model.card.model_copy(update={"diffusion": diffusion})
    loaded = load_model(saved(tmp_path / "model", replace(model, card=card)))
    assert loaded.card.diffusion == diffusion
    assert loaded.denoiser.prediction == "eps" and loaded.denoiser.process.loss_target == "eps"


def test_the_card_keeps_a_sampler_and_is_as_it_was_without_one(tmp_path, model):
    folder = saved(tmp_path / "model", model)
    assert "sampler" not in json.loads((folder / CARD).read_text())
    sampler = SamplerConfig(name="ddim", eta=0.5, guidance_interval=(0.1, 0.8))
    card = model.card.model_copy(update={"sampler": sampler})
    assert load_model(saved(tmp_path / "other", replace(model, card=card))).card == card


def test_a_card_from_before_there_were_others_is_a_rectified_flow_of_pixels_that_predicts_x_0(
    tmp_path, model
):
    folder = saved(tmp_path / "model", model)
    card = json.loads((folder / CARD).read_text())
    assert card.pop("diffusion") == {"process": "rectified_flow", "prediction": "x_0"}
    assert card.pop("autoencoder")["model"] == "pixels"
    for older in (card, {**card, "autoencoder": {"model": "pixels"}}):  # without any, and without its sizes
        (folder / CARD).write_text(json.dumps(older))
        assert load_model(folder).card == model.card


def test_an_autoguide_comes_back_and_without_its_weights_there_is_no_model(tmp_path, model):
    guide = DiT(model.card.dit.resized(width=16, depth=1, heads=1))
    card = model.card.model_copy(update={"autoguide": AutoguideCard(dit=guide.config, scale=1.5)})
    folder = saved(tmp_path / "model", replace(model, card=card, autoguide=guide))
    loaded = load_model(folder)
    assert loaded.card == card and loaded.denoiser.network is loaded.network
    assert loaded.denoiser.autoguide.network is loaded.autoguide
    assert loaded.denoiser.autoguide.scale == 1.5 and not loaded.autoguide.training
    weights = loaded.autoguide.state_dict()
    assert all(torch.equal(weights[name], given) for name, given in guide.state_dict().items())
    for damage, message in ((b"", "autoguide.safetensors: "), (None, "autoguide.safetensors is missing")):
        (folder / AUTOGUIDE_WEIGHTS).unlink()
        if damage is not None:
            (folder / AUTOGUIDE_WEIGHTS).write_bytes(damage)
        with pytest.raises(InputError, match=message) as caught:
            load_model(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "binary"])
def test_a_folder_that_is_no_model_is_one_line(tmp_path, model, name, damage):
    folder = saved(tmp_path / "model", model)
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    contents = {"empty": b"", "cut": data[: len(data) // 2], "binary": b"\xff\xfe\x00"}
    if damage in contents:
        (folder / name).write_bytes(contents[damage])
    with pytest.raises(InputError, match=f"{name}.*is missing|{name}") as caught:
        load_model(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(tmp_path, model):
    folder = saved(tmp_path / "model", model)
    state = load_file(folder / WEIGHTS)
    state["out.bias"][0] = torch.inf
    save_file(state, folder / WEIGHTS)
    with pytest.raises(InputError, match=r"model: its weights 'out\.bias' are not finite") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["nowhere", "model/config.json"])
def test_a_path_that_is_no_folder_is_one_line(tmp_path, model, path):
    saved(tmp_path / "model", model)
    with pytest.raises(InputError, match=r"is not a model folder: config.json is missing$"):
        load_model(tmp_path / path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "gan"}, "kind: Input should be"),
        ({"steps": 0}, "steps: Input should be greater than 0"),
        ({"flavour": 1}, "flavour: Extra inputs"),
        ({"diffusion": {"process": "edm"}}, r"diffusion\.process: Input should be"),
        ({"autoencoder": {"model": "some/vae"}}, "is not a model folder: autoencoder is missing"),
        ({"network": "sd3"}, r"is not a model folder: transformer\.json is missing"),
        ({"dit": {"patch": 3}}, "image_size 8 is not a multiple of patch 3"),
        ({"dit": {"depth": 2}}, "Missing key"),
        ({"dit": {"width": 64}}, "size mismatch"),
    ],
)
def test_a_card_that_does_not_fit_says_where(tmp_path, model, change, message):
    folder = saved(tmp_path / "model", model)
    card = json.loads((folder / CARD).read_text())
    for name, value in change.items():
        card[name] = {**card[name], **value} if isinstance(value, dict) else value
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
