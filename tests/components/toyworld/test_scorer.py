"""The scorer is right on images whose content is known, also when they are blurred and noisy."""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import ndimage

from components.errors import InputError
from components.toyworld.layout import draw_scene
from components.toyworld.parsing import parse
from components.toyworld.prompts import FORMS, ToyPrompt, make_prompts, scene_for
from components.toyworld.render import render
from components.toyworld.scene import BACKGROUNDS, COLOURS, Scene, Thing
from components.toyworld.scorer import detect, is_exact, satisfies_geneval, score_true_renders
from components.toyworld.statements import Statements, are_exact

SIDE = 32


def spoiled(image, rng, noise: float, blur: float) -> np.ndarray:
    soft = ndimage.gaussian_filter(np.asarray(image, float), (blur, blur, 0)) if blur else np.asarray(image)
    return (soft + rng.normal(0, noise, soft.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_true_renders_are_exact_in_every_form(size):
    shares = score_true_renders(per_form=100, size=size, seed=1)
    assert list(shares) == list(FORMS)
    assert min(shares.values()) >= 0.99


@pytest.mark.parametrize(("size", "noise", "blur"), [(32, 12, 0), (32, 0, 0.7), (32, 12, 0.6), (64, 12, 1.2)])
def test_noise_and_blur_cost_little(size, noise, blur):
    rng = np.random.default_rng(0)
    prompts = make_prompts(60, seed=2)
    exact = {form: [] for form in FORMS}
    for prompt in prompts:
        image = spoiled(render(scene_for(prompt, rng), size), rng, noise, blur)
        exact[prompt.form].append(is_exact(image, prompt.statements))
    assert min(np.mean(verdicts) for verdicts in exact.values()) >= 0.98


def test_it_sees_every_thing_where_it_is():
    rng = np.random.default_rng(4)
    for _ in range(200):
        scene = draw_scene(rng)
        detected = detect(np.asarray(render(scene, SIDE)))
        assert detected.clean
        assert detected.background == scene.background
        assert len(detected.things) == len(scene.things)
        for thing in scene.things:
            match = min(detected.things, key=lambda other: abs(other.x - thing.x) + abs(other.y - thing.y))
            assert (match.shape, match.colour) == (thing.shape, thing.colour)
            assert abs(match.x - thing.x) < 0.02
            assert abs(match.y - thing.y) < 0.02
            assert abs(match.size - thing.size) < 0.03


def test_an_image_of_another_prompt_is_exact_only_where_its_scene_is():
    """The verdict on the pixels is that of the scene that was rendered, whichever prompt is asked about."""
    rng = np.random.default_rng(9)
    prompts = make_prompts(120, seed=3)
    scenes = [scene_for(prompt, rng) for prompt in prompts]
    agreed, exact = [], []
    for i, prompt in enumerate(prompts):
        scene = scenes[120 * (i // 120) + (i + 61) % 120]
        exact.append(are_exact(prompt.statements, scene))
        agreed.append(is_exact(np.asarray(render(scene, SIDE)), prompt.statements) == exact[-1])
    assert np.mean(agreed) >= 0.995
    assert np.mean(exact) < 0.05


def image_of(*things: tuple[str, str, float, float], background: str = "grey") -> np.ndarray:
    shapes = (Thing(shape, colour, x, y, 0.3) for colour, shape, x, y in things)
    return np.asarray(render(Scene(background, tuple(shapes)), SIDE))


def asked(text: str, category: str) -> ToyPrompt:
    stated = parse(text)
    assert stated is not None, text
    return ToyPrompt(text, "geneval", stated, category)


RED, BLUE = ("red", "circle", 0.25, 0.5), ("blue", "square", 0.75, 0.5)
ANOTHER_RED = ("red", "circle", 0.75, 0.2)


@pytest.mark.parametrize(
    ("text", "category", "things", "geneval", "exact"),
    [
        ("a red circle", "single_object", [RED], True, True),
        ("a red circle", "single_object", [("blue", "circle", 0.5, 0.5)], True, False),
        ("a red circle", "single_object", [RED, BLUE], True, False),
        ("a red circle", "single_object", [("red", "square", 0.5, 0.5)], False, False),
        ("a red circle and a blue square", "two_object", [RED, BLUE], True, True),
        (
            "a red circle and a blue square", "two_object",
            [("blue", "circle", 0.25, 0.5), ("red", "square", 0.75, 0.5)], True, False,
        ),
        ("a red circle and a blue square", "two_object", [RED], False, False),
        ("two red circles", "counting", [RED, ANOTHER_RED], True, True),
        ("two red circles", "counting", [RED, ("green", "circle", 0.75, 0.2)], True, False),
        ("two red circles", "counting", [RED, ANOTHER_RED, BLUE], True, False),
        ("two red circles", "counting", [RED], False, False),
        ("two red circles", "counting", [RED, ANOTHER_RED, ("red", "circle", 0.75, 0.8)], False, False),
        ("a red circle", "colors", [RED], True, True),
        ("a red circle", "colors", [RED, ("blue", "circle", 0.75, 0.5)], True, False),
        ("a red circle", "colors", [("blue", "circle", 0.5, 0.5)], False, False),
        ("a red circle", "colors", [("red", "square", 0.5, 0.5)], False, False),
        ("a red circle left of a blue square", "position", [RED, BLUE], True, True),
        (
            "a red circle left of a blue square", "position",
            [("red", "circle", 0.25, 0.2), ("blue", "square", 0.75, 0.8)], True, True,
        ),
        (
            "a red circle left of a blue square", "position",
            [("green", "circle", 0.25, 0.5), ("cyan", "square", 0.75, 0.5)], True, False,
        ),
        (
            "a red circle left of a blue square", "position",
            [("red", "circle", 0.75, 0.5), ("blue", "square", 0.25, 0.5)], False, False,
        ),
        (
            "a red circle left of a blue square", "position",
            [("red", "circle", 0.5, 0.2), ("blue", "square", 0.5, 0.8)], False, False,
        ),
        ("a red circle and a blue square", "color_attr", [RED, BLUE], True, True),
        (
            "a red circle and a blue square", "color_attr",
            [("blue", "circle", 0.25, 0.5), ("red", "square", 0.75, 0.5)], False, False,
        ),
    ],
)  # fmt: skip
def test_each_category_has_genevals_rule_and_exact_asks_for_all(text, category, things, geneval, exact):
    image, prompt = image_of(*things), asked(text, category)
    assert satisfies_geneval(image, prompt) == geneval
    assert is_exact(image, prompt.statements) == exact


def test_a_category_that_is_none_is_named():
    with pytest.raises(InputError, match="prompt category 'None' is unknown; use one of single_object"):
        satisfies_geneval(image_of(RED), ToyPrompt("a red circle", "short", Statements(())))


def test_touching_things_of_two_colours_are_separated():
    scene = Scene("white", (Thing("square", "red", 0.3, 0.5, 0.4), Thing("square", "blue", 0.65, 0.5, 0.4)))
    things = detect(np.asarray(render(scene, SIDE))).things
    assert sorted((t.shape, t.colour) for t in things) == [("square", "blue"), ("square", "red")]


def plain_images() -> Iterator[tuple[str, np.ndarray]]:
    for name, rgb in BACKGROUNDS.items():
        yield name, np.full((SIDE, SIDE, 3), rgb, np.uint8)


def test_a_plain_background_is_clean_and_shows_nothing():
    for name, image in plain_images():
        detected = detect(image)
        assert (detected.background, detected.things, detected.clean) == (name, (), True)


def test_what_is_no_thing_or_no_shape_is_not_clean():
    for _, image in plain_images():
        speck = image.copy()
        speck[4:7, 4:7] = COLOURS["red"]
        assert not detect(speck).clean and detect(speck).things == ()
        stripe = image.copy()
        stripe[15:18] = COLOURS["red"]
        assert not detect(stripe).clean
    rng = np.random.default_rng(0)
    assert not detect(rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)).clean
    for colour in COLOURS.values():  # of no background's colour, and not square
        assert not detect(np.full((24, 40, 3), colour, np.uint8)).clean


@pytest.mark.parametrize("shape", [(23, 64, 3), (32, 32), (32, 32, 4)])
def test_an_image_that_cannot_be_scored_is_named(shape):
    with pytest.raises(InputError, match="cannot be scored; give"):
        detect(np.zeros(shape, np.uint8))
