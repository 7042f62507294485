"""A language model's hidden states and open_clip's text towers: their features, and an empty prompt's."""

import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BartConfig, LlamaForCausalLM

from components.conditioning.config import TextConfig
from components.conditioning.text import FrozenText, OpenClipText, load_pretrained_text, load_text_encoder
from components.errors import InputError
from tests.small_text_encoders import CONTEXT, save_llama, save_open_clip

CAPTION = "a red circle and a blue square"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> dict[str, str]:
    return {
        "llama": save_llama(tmp_path_factory.mktemp("llama")),
        "open-clip": save_open_clip(tmp_path_factory.mktemp("open-clip")),
        "open-clip-custom": save_open_clip(tmp_path_factory.mktemp("custom"), custom=True),
    }


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("llama", "auto"), ("llama", "bfloat16"), ("open-clip", "auto"), ("open-clip-custom", "bfloat16")],
)
def test_an_encoder_s_features_are_of_the_text_alone_and_travel_with_the_model(
    encoders, tmp_path, name, dtype
):
    special = 0 if name == "llama" else 2
    source = tmp_path / "source"
    folder = encoders[name].removeprefix("local-dir:")
    shutil.copytree(folder, source)
    config = TextConfig(model=encoders[name].replace(folder, str(source)), max_length=10, dtype=dtype)
    encoder = load_pretrained_text(config)
    text = encoder(["a red circle", CAPTION, ""])
    assert text.mask.sum(1).tolist() == [
        3 + special,
        7 + special,
        max(special, 1),
    ]  # the empty one has a token
    assert text.values.shape == (3, 7 + special, encoder.features) and text.values.dtype == torch.float32
    assert text.values.isfinite().all() and not text.values[~text.mask].any()
    alone = encoder(["a red circle"]).values
    assert torch.equal(alone[0], text.values[0, : 3 + special])
    assert encoder(["red " * 40]).mask.shape == (1, 10)
    fitting = " ".join(["red"] * (10 - special))
    assert (
        encoder.count_cut(["", CAPTION, fitting]) == 0 and encoder.count_cut([f"{fitting} red", fitting]) == 1
    )
    assert encoder.stored.dtype == ("float32" if dtype == "auto" else "bfloat16")

    encoder.save(tmp_path)
    shutil.rmtree(source)
    loaded = load_text_encoder(config, tmp_path)
    assert torch.equal(loaded(["a red circle"]).values, alone)
    assert loaded.identity == encoder.identity and loaded.stored.same_features(encoder.stored)


def test_a_language_model_s_features_are_its_hidden_states(encoders):
    whole = LlamaForCausalLM.from_pretrained(encoders["llama"]).eval()
    inputs = AutoTokenizer.from_pretrained(encoders["llama"])(CAPTION, return_tensors="pt").input_ids
    with torch.no_grad():
        states = whole(input_ids=inputs, output_hidden_states=True).hidden_states
    identities = set()
    for layer in (-1, -2, -3):
        encoder = load_pretrained_text(TextConfig(model=encoders["llama"], layer=layer))
        torch.testing.assert_close(encoder([CAPTION]).values, states[layer])
        identities.add(encoder.identity)
    assert len(identities) == 3
    with pytest.raises(InputError, match="has 2 layers, and layer is -4; set it to -3 to -1"):
        load_pretrained_text(TextConfig(model=encoders["llama"], layer=-4))


@pytest.mark.parametrize("name", ["open-clip", "open-clip-custom"])
def test_open_clip_s_tokens_are_those_that_it_pools(encoders, name):
    """Its own text embedding is the projection of the features at the end of the text."""
    encoder = OpenClipText(encoders[name], CONTEXT)
    ids = open_clip.get_tokenizer(encoders[name])([CAPTION, ""])
    tower = getattr(encoder.model, "text", encoder.model)
    text = encoder([CAPTION, ""])
    ends = text.mask.sum(1) - 1
    assert torch.equal(ends, ids.argmax(1))
    last = text.values[torch.arange(2), ends]
    with torch.no_grad():
        torch.testing.assert_close(last @ tower.text_projection, encoder.model.encode_text(ids))


def test_another_open_clip_model_is_another_identity_and_its_image_tower_none(encoders, tmp_path):
    identity = OpenClipText(encoders["open-clip"], 10).identity
    assert OpenClipText(encoders["open-clip"], 9).identity != identity
    for prefix, same in (("visual.proj", True), ("ln_final.bias", False)):
        folder = tmp_path / prefix
        shutil.copytree(encoders["open-clip"].removeprefix("local-dir:"), folder)
        state = load_file(folder / "open_clip_model.safetensors")
        state[prefix] += 1
        save_file(state, folder / "open_clip_model.safetensors")
        assert (OpenClipText(f"local-dir:{folder}", 10).identity == identity) == same


def spoil(folder: Path, how: str) -> None:
    name = next(iter(folder.glob("*.safetensors")))
    state = load_file(name)
    weights = next(key for key in sorted(state) if "norm" in key or "ln_final" in key)
    if how == "missing":
        del state[weights]
    else:
        state[weights] = {"nan": state[weights] * torch.nan, "shape": state[weights][:-1].clone()}[how]
    save_file(state, name, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("llama", "missing"),
        ("llama", "shape"),
        ("llama", "nan"),
        ("open-clip", "missing"),
        ("open-clip", "nan"),
    ],
)
def test_a_checkpoint_that_lacks_weights_is_refused_and_no_weight_is_drawn_in_their_place(
    encoders, tmp_path, name, how
):
    source = encoders[name].removeprefix("local-dir:")
    folder = tmp_path / "model"
    shutil.copytree(source, folder)
    spoil(folder, how)
    with pytest.raises(InputError, match="are not finite" if how == "nan" else "cannot be loaded") as caught:
        load_pretrained_text(TextConfig(model=encoders[name].replace(source, str(folder))))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_model_with_a_decoder_is_refused(tmp_path):
    BartConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a bart has a decoder"):
        FrozenText(str(tmp_path), 10)


@pytest.mark.parametrize("model", ["hf-hub:no/such/model", "local-dir:/no/such/folder"])
def test_an_open_clip_model_that_there_is_not_is_one_line(model):
    with pytest.raises(
        InputError, match=f"text encoder '{model}' is neither a folder nor a model of the hub"
    ):
        load_pretrained_text(TextConfig(model=model))
