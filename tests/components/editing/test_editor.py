"""The Editor: against distributions that have a closed form, and what an image is a function of."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from components.conditioning.autoencoder import PixelAutoencoder, from_pixels, to_pixels
from components.conditioning.config import AutoencoderConfig
from components.conditioning.convolutional_autoencoder import ConvolutionalAutoencoder
from components.conditioning.text import LearnedText, TextConfig, TextTokens
from components.diffusion.config import DiTConfig
from components.diffusion.denoiser import ConditionedDenoiser, Denoiser, conditioned
from components.diffusion.dit import DiT
from components.diffusion.samplers import get_noise
from components.diffusion.times import even_times
from components.editing.editor import Editor, edited
from components.editing.edits import Edit, colorization, inpainting, stroke_guided, super_resolution
from components.errors import InputError
from components.generation.generator import Generator
from components.generation.model_folder import Model, ModelCard
from components.randomness import sample_seeds
from tests.gaussian_data import PROCESSES, Gaussian

SIDE = 8
PROMPTS = ["a red circle", "a blue square and a longer text beside it", "a star"]
ENCODER = LearnedText.fit(PROMPTS, 300, 40)
NO_TEXT = TextTokens(torch.ones(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool))
HOLE = torch.zeros(SIDE, SIDE, dtype=torch.bool)
HOLE[:, 4:] = True


def oracle(process, end) -> ConditionedDenoiser:
    """A student whose consistency function is `end`, for times away from 0."""
    return conditioned(Denoiser(lambda x, t, _: end(x, t), process, "x_0"), NO_TEXT)


def edited_by(denoiser: ConditionedDenoiser, edits: list[Edit], steps: int) -> torch.Tensor:
    shape = (len(edits), *edits[0].start.shape)
    noise = partial(get_noise, shape, 0)
    return edited(
        denoiser, PixelAutoencoder(), edits, even_times(steps), lambda step: noise(f"{step}").double()
    )


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("steps", [1, 3])
def test_of_independent_pixels_the_filled_ones_have_the_data_s_mean_and_deviation(name, steps):
    """What is known says nothing of the rest, so that the rest is a sample of the data."""
    data, process = Gaussian(0.2, 0.1), PROCESSES[name]
    known = torch.full((3, SIDE, SIDE), -0.3, dtype=torch.float64)
    images = edited_by(oracle(process, partial(data.end, process)), [inpainting(known, HOLE)] * 40, steps)
    assert torch.equal(images[:, :, ~HOLE], known[:, ~HOLE].expand(40, -1, -1))
    filled = images[:, :, HOLE]
    assert filled.mean().item() == pytest.approx(0.2, abs=0.005)
    assert filled.std().item() == pytest.approx(0.1, abs=0.005)


def tied(edit_of) -> list[float]:
    """The error of the unknown part by steps, of data x_0 = a u: the known part fixes a, hence the rest."""
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    u = u / u.norm()
    truth = 1.5 * u
    assert truth.abs().max() < 1

    def end(x, t):
        """Along u the data are N(0, 1), of which every path has its deviation; across they are 0."""
        deviation = ((1 - t) ** 2 + t**2).sqrt()
        return ((x * u).sum((1, 2, 3)) / deviation).view(-1, 1, 1, 1) * u

    edit = edit_of(truth)
    student, errors = oracle(PROCESSES["rectified_flow"], end), []
    for steps in (1, 8, 64):
        difference = edited_by(student, [edit] * 4, steps) - truth
        errors.append(difference.square().sum((1, 2, 3)).mean().sqrt().item())
    return errors


@pytest.mark.parametrize(
    "edit_of",
    [
        lambda truth: inpainting(truth, HOLE),
        colorization,
        lambda truth: super_resolution(torch.nn.functional.avg_pool2d(truth, 2), 2),
    ],
    ids=["inpaint", "colorize", "upscale"],
)
def test_where_the_known_part_fixes_the_rest_more_steps_find_it(edit_of):
    one, some, many = tied(edit_of)
    assert some < 0.6 * one
    assert many < 0.3 * one


def test_strokes_end_where_their_noised_image_s_path_ends():
    data, process = Gaussian(0.2, 0.1), PROCESSES["rectified_flow"]
    strokes = 0.1 * torch.randn(3, SIDE, SIDE, dtype=torch.float64)
    images = edited_by(oracle(process, partial(data.end, process)), [stroke_guided(strokes, 0.4)] * 2, 1)
    t = torch.full((2,), 0.4)
    noise = get_noise((2, 3, SIDE, SIDE), 0, "0").double()
    expected = data.end(process, process.sample(strokes.expand(2, -1, -1, -1), noise, t).x_t, t)
    torch.testing.assert_close(images, expected)


def model(kind: str = "consistency", autoencoder: ConvolutionalAutoencoder | None = None) -> Model:
    """A small network of random weights, on pixels or on latents."""
    torch.manual_seed(0)
    side, channels = (SIDE, 3) if autoencoder is None else (SIDE // autoencoder.downscale, 4)
    sizes = DiTConfig(
        image_size=side, channels=channels, patch=2, width=32, depth=1, heads=2, vocabulary=ENCODER.vocabulary
    )
    network = DiT(sizes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    text = TextConfig(vocabulary=300, max_length=40)
    card = ModelCard(kind=kind, dit=sizes, text=text, steps=2, guidance=3.0, images_seen=0)
    return Model(network.eval(), ENCODER, card, None, autoencoder or PixelAutoencoder())


def latent_model() -> Model:
    torch.manual_seed(1)
    return model(
        autoencoder=ConvolutionalAutoencoder(AutoencoderConfig(model="fit", channels=4, widths=(8, 8)))
    )


MODELS = {"student": model, "teacher": partial(model, "flow"), "latents": latent_model}
TRUTH = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
IMAGE = from_pixels(TRUTH[None])[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_known_part_holds_in_the_written_pixels(name):
    """Of any model, in one step and in more: exactly in pixels, to rounding in grey values and means."""
    small = np.random.default_rng(1).integers(0, 256, (1, SIDE // 4, SIDE // 4, 3), np.uint8)
    edits = [
        inpainting(IMAGE, HOLE),
        colorization(IMAGE),
        super_resolution(from_pixels(small)[0], 4),
    ]
    for steps in (1, 3):
        filled, coloured, enlarged = Editor(MODELS[name]()).edit(
            edits, PROMPTS, sample_seeds(0, 3), steps=steps
        )
        assert np.array_equal(filled[~HOLE.numpy()], TRUTH[~HOLE.numpy()])
        assert not np.array_equal(filled, TRUTH)
        greys = [np.asarray(Image.fromarray(array).convert("L"), int) for array in (coloured, TRUTH)]
        assert np.abs(greys[0] - greys[1]).max() <= 1
        assert (np.ptp(coloured.astype(int), axis=2) > 8).any()
        means = enlarged.reshape(2, 4, 2, 4, 3).mean((1, 3))
        assert np.abs(means - small[0]).max() <= 0.5
        assert enlarged.reshape(2, 4, 2, 4, 3).std((1, 3)).max() > 8


@pytest.mark.parametrize("steps", [1, 3])
def test_strokes_of_full_strength_are_what_the_generator_makes(steps):
    student = model()
    edits = [stroke_guided(IMAGE, 1.0)] * 3
    images = Editor(student).edit(edits, PROMPTS, sample_seeds(5, 3), steps=steps)
    assert np.array_equal(images, Generator(student).generate(PROMPTS, steps=steps, seed=5))


@pytest.mark.parametrize("name", MODELS)
def test_an_edit_is_the_same_in_whatever_batch_and_its_prompt_seed_and_index_count(name):
    editor = Editor(MODELS[name](), batch_size=2)
    edits = [inpainting(IMAGE, HOLE), colorization(IMAGE), inpainting(IMAGE, HOLE)]
    together = editor.edit(edits, PROMPTS, sample_seeds(3, 3), steps=2)
    for at, seed in enumerate(sample_seeds(3, 3)):
        alone = editor.edit([edits[at]], [PROMPTS[at]], [seed], steps=2)[0]
        assert np.abs(alone.astype(int) - together[at]).max() <= 1  # sums in another order
    inputs = {
        "prompt": (PROMPTS[1], sample_seeds(3, 1)),
        "seed": (PROMPTS[0], sample_seeds(4, 1)),
        "index": (PROMPTS[0], sample_seeds(3, 1, first=1)),
    }
    for what, (prompt, seeds) in inputs.items():
        assert not np.array_equal(editor.edit(edits[:1], [prompt], seeds, steps=2)[0], together[0]), what


def test_steps_are_the_edit_s_own_or_the_model_s_where_these_are_more():
    editor = Editor(model())
    hole, strokes = inpainting(IMAGE, HOLE), stroke_guided(IMAGE)
    assert editor.steps_of([hole], None) == 8 and editor.steps_of([strokes], None) == 2
    assert editor.steps_of([hole], 1) == 1
    own = editor.edit([hole], PROMPTS[:1], sample_seeds(0, 1))
    assert np.array_equal(own, editor.edit([hole], PROMPTS[:1], sample_seeds(0, 1), steps=8))
    with pytest.raises(InputError, match="steps is 0; it must be 1 to 1000"):
        editor.edit([hole], PROMPTS[:1], sample_seeds(0, 1), steps=0)


def test_no_edits_are_no_images_and_another_size_is_refused():
    editor = Editor(model())
    assert editor.edit([], [], []).shape == (0, SIDE, SIDE, 3)
    with pytest.raises(InputError, match="an image is 4x4 pixels, and this model's are 8x8"):
        editor.edit([stroke_guided(IMAGE[:, :4, :4])], ["a star"], sample_seeds(0, 1))


def test_latents_of_strokes_are_left_alone_by_the_autoencoder():
    """In many steps as in one: what was not changed in pixels moves nothing in the latents."""
    latent = latent_model()
    start = IMAGE.clamp(-0.9, 0.9)
    denoiser = conditioned(latent.denoiser, ENCODER(["a star"]))
    noise = partial(get_noise, (1, 4, SIDE // 2, SIDE // 2), 0)
    with torch.no_grad():
        images = edited(
            denoiser, latent.autoencoder, [stroke_guided(start, 0.5)], even_times(2), lambda n: noise(f"{n}")
        )
        x_0, t = latent.autoencoder.encode(start[None]), torch.tensor([0.5])
        for step, time in enumerate((t, t / 2)):
            x_t = denoiser.process.sample(x_0, noise(f"{step}"), time).x_t
            x_0 = denoiser.consistency(x_t, time)
    assert np.array_equal(to_pixels(images), to_pixels(latent.autoencoder.decode(x_0)))
