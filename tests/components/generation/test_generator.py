"""The Generator: an image is a function of prompt, seed, index, steps and guidance, whatever is beside it."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from components.conditioning.autoencoder import PixelAutoencoder
from components.conditioning.config import TextConfig
from components.conditioning.text import LearnedText
from components.diffusion.config import DiffusionConfig, DiTConfig, SamplerConfig
from components.diffusion.dit import DiT
from components.errors import InputError
from components.generation.generator import BATCH, MAX_STEPS, Generator
from components.generation.model_folder import Model, ModelCard, listed_sizes, save_model
from components.image_size import ImageSize
from components.upsampling.prompt_upsampler import unchanged
from tests.small_upsampler import small_upsampler

PROMPTS = ["a red circle", "a blue square and a much longer text beside it, of many words", "", "a star"]
ENCODER = LearnedText.fit(PROMPTS, 300, 40)


def model(kind: str, **diffusion: str) -> Model:
    torch.manual_seed(0)
    sizes = {"image_size": 8, "patch": 4, "width": 32, "depth": 1, "heads": 2}
    network = DiT(DiTConfig(vocabulary=ENCODER.vocabulary, second_time=kind == "mean_flow", **sizes))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    steps = 3 if kind == "flow" else 2
    text = TextConfig(vocabulary=300, max_length=40)
    card = ModelCard(
        kind=kind,
        dit=network.config,
        diffusion=DiffusionConfig(**diffusion),
        text=text,
        steps=steps,
        guidance=3.0,
        images_seen=0,
    )
    return Model(network.eval(), ENCODER, card)


@pytest.fixture(params=["flow", "consistency", "mean_flow"])
def generator(request) -> Generator:
    return Generator(model(request.param))


def assert_alike(images: np.ndarray, others: np.ndarray) -> None:
    """The same but for rounding: sums over padded texts come in another order."""
    assert np.abs(images.astype(int) - others.astype(int)).max() <= 1


def test_an_image_is_the_same_in_whatever_batch_it_is_generated(generator):
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


@pytest.mark.parametrize("kind", ["consistency", "mean_flow"])
def test_a_student_has_its_guidance_in_it(kind):
    student = Generator(model(kind))
    with pytest.raises(InputError, match="this model absorbed guidance 3; it cannot generate with 1"):
        student.generate(["a star"], guidance=1.0)


def test_a_model_is_sampled_as_its_card_or_the_caller_says():
    """Stochastic samplers give each image its own noise, in whatever batch it is."""
    flow = Generator(model("flow"))
    euler = flow.generate(PROMPTS)
    assert np.array_equal(flow.generate(PROMPTS, sampler=SamplerConfig()), euler)
    for sampler in (
        SamplerConfig(name="sde"),
        SamplerConfig(name="ddim", eta=1.0),
        SamplerConfig(name="heun"),
    ):
        images = flow.generate(PROMPTS, sampler=sampler)
        assert not np.array_equal(images, euler)
        assert_alike(flow.generate([PROMPTS[3]], first=3, sampler=sampler)[0], images[3])
        own = Generator(replace(flow.model, card=flow.model.card.model_copy(update={"sampler": sampler})))
        assert own.sampler == sampler and np.array_equal(own.generate(PROMPTS), images)
    limited = SamplerConfig(guidance_interval=(0.3, 0.7), guidance_rescale=0.5)
    assert not np.array_equal(flow.generate(PROMPTS, sampler=limited), euler)


def test_a_sampler_that_the_model_cannot_use_is_one_line():
    student, flow = Generator(model("consistency")), Generator(model("flow"))
    assert student.sampler.name == "consistency"
    for sampler in (SamplerConfig(name="ddpm"), student.sampler.overridden(guidance_rescale=0.5)):
        with pytest.raises(InputError, match=r"this model was distilled.* leave the sampler's settings out"):
            student.generate([], sampler=sampler)
    with pytest.raises(InputError, match="sampler consistency is for a distilled model, and this is none"):
        flow.generate([], sampler=student.sampler)


@pytest.mark.parametrize("guidance", [-1, 101, float("nan"), float("inf")])
def test_guidance_out_of_range_is_one_line(guidance):
    with pytest.raises(InputError, match=r"guidance is .*; it must be 0 to 100"):
        Generator(model("flow")).generate(["a star"], guidance=guidance)


@pytest.mark.parametrize("steps", [0, -1, MAX_STEPS + 1])
def test_steps_out_of_range_are_one_line(generator, steps):
    with pytest.raises(InputError, match=f"steps is {steps}; it must be 1 to {MAX_STEPS}"):
        generator.generate(["a star"], steps=steps)


def test_an_untrained_second_time_generates_as_the_teacher_s_unguided_steps():
    teacher, student = model("flow"), model("mean_flow")
    fresh = DiT(student.network.config)
    fresh.load_state_dict(fresh.state_dict() | teacher.network.state_dict())
    untrained = Generator(replace(student, network=fresh.eval()))
    for steps in (1, 3):
        images = Generator(teacher).generate(PROMPTS, steps=steps, guidance=1.0)
        assert np.array_equal(untrained.generate(PROMPTS, steps=steps), images)


@pytest.mark.parametrize("kind", ["consistency", "mean_flow"])
def test_steps_go_along_the_times_of_the_card(kind):
    student = model(kind)

    def images(steps: int, **times) -> np.ndarray:
        return Generator(replace(student, card=ModelCard(**{**dict(student.card), **times}))).generate(
            PROMPTS, steps=steps
        )

    assert np.array_equal(images(2, times={2: (1, 0.5, 0)}), images(2))  # the even ones
    assert not np.array_equal(images(2, times={2: (1, 0.2, 0)}), images(2))
    assert np.array_equal(images(3, times={2: (1, 0.2, 0)}), images(3))
    for wrong in ((1, 0), (1, 0.5, 0.1), (0.9, 0.5, 0), (1, 1, 0)):
        with pytest.raises(ValidationError, match="times of 2 steps are not 3 that fall from 1 to 0"):
            images(2, times={2: wrong})


def test_no_prompts_are_no_images(generator):
    assert generator.generate([]).shape == (0, 8, 8, 3)


def test_a_saved_model_generates_the_same(generator, tmp_path):
    save_model(tmp_path, generator.model)
    loaded = Generator.load(tmp_path, device="cpu")
    assert np.array_equal(loaded.generate(PROMPTS, seed=2), generator.generate(PROMPTS, seed=2))


@pytest.fixture(scope="module")
def upsampler():
    return small_upsampler([("a star", "a red star"), ("a cross", "a blue cross")])


def test_prompts_are_upsampled_only_when_asked_and_the_same_in_whatever_batch(generator, upsampler, tmp_path):
    prompts = ["a star"] * (BATCH + 2)
    plain = generator.generate(prompts, seed=2)
    assert generator.upsample(prompts) == unchanged(prompts)
    save_model(tmp_path, replace(generator.model, upsampler=upsampler))
    loaded = Generator.load(tmp_path, device="cpu")
    upsampled = loaded.upsample(prompts, seed=2)
    first, rest = upsampler(prompts[:BATCH], seed=2), upsampler(prompts[BATCH:], seed=2, first=BATCH)
    assert upsampled == first + rest
    captions = [one.caption for one in upsampled]
    assert len(set(captions)) > 1
    assert not np.array_equal(loaded.generate(captions, seed=2), plain)
    assert np.array_equal(loaded.generate(prompts, seed=2), plain)


@pytest.mark.parametrize("kind", ["flow", "consistency"])
def test_process_and_prediction_of_the_card_count(kind):
    """In two steps: at pure noise a predicted x_0 is the image of any process.

    Where a flow's velocity is predicted, Euler's steps are the same whatever the process.
    """

    def image(**diffusion: str) -> bytes:
        quiet = model(kind, **diffusion)
        quiet.network.out.weight.data.mul_(0.05)  # so that few pixels are clipped
        return Generator(quiet).generate(["a star"], steps=2).tobytes()

    pairs = [(p, q) for p in ("rectified_flow", "ddpm") for q in ("x_0", "velocity", "eps")]
    images = {pair: image(process=pair[0], prediction=pair[1]) for pair in pairs}
    assert images["rectified_flow", "x_0"] == image()
    same = images["rectified_flow", "velocity"] == images["ddpm", "velocity"]
    assert same == (kind == "flow")
    assert len(set(images.values())) == len(pairs) - same


class Enlarging(PixelAutoencoder):
    """Latents of half the side, decoded to grey."""

    downscale = 2

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return 0 * latents.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_latents_are_decoded_by_the_model_s_autoencoder(generator):
    latent = Generator(replace(generator.model, autoencoder=Enlarging()))
    images = latent.generate(["a star", ""])
    assert images.shape == (2, 16, 16, 3) and latent.image_size == 16
    assert latent.generate([]).shape == (0, 16, 16, 3)
    assert set(images.ravel().tolist()) == {128}


def test_serving_needs_nothing_of_training():
    """What generates imports no training loop, no loss and no Accelerate."""
    check = (
        "import sys, components.generation.generator\n"
        "rooms = ('components.training', 'components.distillation', 'accelerate', 'pipelines')\n"
        "print([name for name in sys.modules if name.startswith(rooms)])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def sized(kind: str, *sizes: str) -> Generator:
    whole = model(kind)
    return Generator(replace(whole, card=ModelCard(**{**whole.card.model_dump(), "sizes": sizes})))


@pytest.mark.parametrize("kind", ["flow", "consistency", "mean_flow"])
def test_a_model_of_several_sizes_generates_each_and_the_first_by_default(kind):
    of_square, several = Generator(model(kind)), sized(kind, "8x8", "12x4")
    assert [str(size) for size in several.sizes] == ["8x8", "12x4"]
    assert np.array_equal(several.generate(PROMPTS), of_square.generate(PROMPTS))
    wide = several.generate(PROMPTS, size=ImageSize.parse("12x4"))
    assert wide.shape == (4, 4, 12, 3)
    assert_alike(several.generate([PROMPTS[1]], size=several.sizes[1], first=1)[0], wide[1])
    assert sized(kind, "12x4").generate([]).shape == (0, 4, 12, 3)


def test_a_size_that_no_training_had_is_generated_where_the_patches_cover_it():
    generator = sized("flow", "8x8", "12x4")
    assert generator.generate(["a star"], size=ImageSize(16, 8)).shape == (1, 16, 8, 3)
    with pytest.raises(InputError, match=r"size is 10x8; both sides .* are multiples of 4"):
        generator.generate([], size=ImageSize(8, 10))
    with pytest.raises(InputError, match=r"size is 400x400; it may have 16 times the pixels of 8x8"):
        generator.generate([], size=ImageSize.square(400))


def test_a_card_lists_the_square_first_and_says_nothing_of_it_alone():
    square, wide, tall = ImageSize(8, 8), ImageSize(4, 12), ImageSize(12, 4)
    assert listed_sizes([square], 8) == ()
    assert listed_sizes([tall, wide, square], 8) == (square, wide, tall)
    assert listed_sizes([tall], 8) == (tall,)
    assert "sizes" not in model("flow").card.model_dump()
