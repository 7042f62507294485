"""The Generator: an image is a function of prompt, seed, index, steps and guidance, whatever is beside it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from components.conditioning.text import LearnedText, TextConfig
from components.diffusion.dit import DiT, DiTConfig
from components.generation.generator import BATCH, MOST_STEPS, Generator, from_pixels, to_pixels
from components.generation.model_folder import Model, ModelCard, save_model
from tests.small_upsampler import small_upsampler

PROMPTS = ["a red circle", "a blue square and a much longer text beside it, of many words", "", "a star"]
ENCODER = LearnedText.fit(PROMPTS, 300, 40)


def model(kind: str) -> Model:
    torch.manual_seed(0)
    sizes = {"image_size": 8, "patch": 4, "width": 32, "depth": 1, "heads": 2}
    network = DiT(DiTConfig(vocabulary=ENCODER.vocabulary, **sizes))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    steps = 3 if kind == "flow" else 2
    text = TextConfig(vocabulary=300, max_length=40)
    card = ModelCard(kind=kind, dit=network.config, text=text, steps=steps, guidance=3.0, images_seen=0)
    return Model(network.eval(), ENCODER, card)


@pytest.fixture(params=["flow", "consistency"])
def generator(request) -> Generator:
    return Generator(model(request.param))


def assert_alike(images: np.ndarray, others: np.ndarray) -> None:
    """The same but for rounding: sums over padded texts come in another order."""
    assert np.abs(images.astype(int) - others.astype(int)).max() <= 1


def test_an_image_is_the_same_in_whatever_batch_it_is_drawn(generator):
    together = generator.generate(PROMPTS, seed=5)
    assert together.shape == (4, 8, 8, 3) and together.dtype == np.uint8
    for index, prompt in enumerate(PROMPTS):
        assert_alike(generator.generate([prompt], seed=5, first=index)[0], together[index])
    assert np.array_equal(generator.generate(PROMPTS, seed=5), together)


def test_more_images_than_a_batch_are_numbered_on(generator):
    many = generator.generate(["a star"] * (BATCH + 6), steps=1)
    assert np.array_equal(generator.generate(["a star"] * 6, steps=1, first=BATCH), many[BATCH:])
    assert len(np.unique(many.reshape(len(many), -1), axis=0)) == BATCH + 6


def test_prompt_seed_index_and_steps_all_count(generator):
    image = generator.generate(["a red circle"])[0]
    others = {
        "prompt": generator.generate(["a star"])[0],
        "seed": generator.generate(["a red circle"], seed=1)[0],
        "index": generator.generate(["a red circle"], first=1)[0],
        "steps": generator.generate(["a red circle"], steps=1)[0],
    }
    for name, other in others.items():
        assert not np.array_equal(image, other), name


def test_what_is_not_given_is_the_model_s_own(generator):
    steps = generator.model.card.steps
    own = generator.generate(PROMPTS)
    assert np.array_equal(own, generator.generate(PROMPTS, steps=steps, guidance=3.0, seed=0))


def test_guidance_moves_a_flow_s_image():
    flow = Generator(model("flow"))
    images = [flow.generate(["a star"], guidance=w)[0] for w in (0, 1, 3)]
    assert len({image.tobytes() for image in images}) == 3
    # Without guidance the prompt counts for nothing.
    assert_alike(flow.generate(["a star"], guidance=0), flow.generate(["a red circle"], guidance=0))


def test_a_consistency_model_has_its_guidance_in_it():
    student = Generator(model("consistency"))
    with pytest.raises(ValueError, match="this model absorbed guidance 3; it cannot draw with 1"):
        student.generate(["a star"], guidance=1.0)


@pytest.mark.parametrize("guidance", [-1, 101, float("nan"), float("inf")])
def test_guidance_out_of_range_is_one_line(guidance):
    with pytest.raises(ValueError, match=r"guidance is .*; it must be 0 to 100"):
        Generator(model("flow")).generate(["a star"], guidance=guidance)


@pytest.mark.parametrize("steps", [0, -1, MOST_STEPS + 1])
def test_steps_out_of_range_are_one_line(generator, steps):
    with pytest.raises(ValueError, match=f"steps is {steps}; it must be 1 to {MOST_STEPS}"):
        generator.generate(["a star"], steps=steps)


def test_no_prompts_are_no_images(generator):
    assert generator.generate([]).shape == (0, 8, 8, 3)


def test_a_saved_model_draws_the_same(generator, tmp_path):
    save_model(tmp_path, generator.model)
    loaded = Generator.load(tmp_path, device="cpu")
    assert np.array_equal(loaded.generate(PROMPTS, seed=2), generator.generate(PROMPTS, seed=2))


@pytest.fixture(scope="module")
def upsampler():
    return small_upsampler([("a star", "a red star"), ("a cross", "a blue cross")])


def test_what_is_drawn_is_what_the_upsampler_says(generator, upsampler, tmp_path):
    prompts = ["a star"] * (BATCH + 2)
    plain = generator.generate(prompts, seed=2)
    assert generator.captions(prompts) == prompts
    save_model(tmp_path, replace(generator.model, upsampler=upsampler))
    loaded = Generator.load(tmp_path, device="cpu")
    captions = loaded.captions(prompts, seed=2)
    assert captions == upsampler(prompts[:BATCH], seed=2) + upsampler(prompts[BATCH:], seed=2, first=BATCH)
    assert len(set(captions)) > 1
    drawn = loaded.generate(prompts, seed=2)
    assert np.array_equal(drawn, loaded.generate(captions, seed=2, upsample=False))
    assert not np.array_equal(drawn, plain)
    assert np.array_equal(loaded.generate(prompts, seed=2, upsample=False), plain)


def test_pixels_come_back_through_the_network_s_range():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    x = from_pixels(pixels)
    assert (x.shape, x.min().item(), x.max().item()) == ((1, 3, 16, 16), -1.0, 1.0)
    assert np.array_equal(to_pixels(x), pixels)
    beyond = torch.tensor([-7.0, -1.0, 0.0, 1.0, 7.0]).view(1, 1, 1, 5)
    assert to_pixels(beyond).ravel().tolist() == [0, 0, 128, 255, 255]
