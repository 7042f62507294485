"""The scorer is right on images whose content is known, also when they are blurred and noisy."""

import numpy as np
import pytest
from scipy import ndimage

from components.toyworld.prompts import CATEGORIES, make_prompts, scene_for
from components.toyworld.render import render
from components.toyworld.scene import COLOURS, Scene, Thing, draw_scene
from components.toyworld.scorer import detect, is_correct, score_prompts, score_true_renders


def spoiled(image, rng, noise: float, blur: float) -> np.ndarray:
    soft = ndimage.gaussian_filter(np.asarray(image, float), (blur, blur, 0)) if blur else np.asarray(image)
    return (soft + rng.normal(0, noise, soft.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_true_renders_score_one_in_every_category(size):
    scores = score_true_renders(per_category=100, size=size, seed=1)
    assert set(scores) == set(CATEGORIES)
    assert min(scores.values()) >= 0.99


@pytest.mark.parametrize(("size", "noise", "blur"), [(32, 12, 0), (32, 0, 0.7), (32, 12, 0.6), (64, 12, 1.2)])
def test_noise_and_blur_cost_little(size, noise, blur):
    rng = np.random.default_rng(0)
    prompts = make_prompts(60, seed=2)
    images = [spoiled(render(scene_for(prompt, rng), size), rng, noise, blur) for prompt in prompts]
    assert min(score_prompts(images, prompts).values()) >= 0.98


def test_it_sees_every_thing_where_it_is():
    rng = np.random.default_rng(4)
    for _ in range(200):
        scene = draw_scene(rng)
        detected = detect(np.asarray(render(scene, 32)))
        assert detected.background == scene.background
        assert len(detected.things) == len(scene.things)
        for thing in scene.things:
            match = min(detected.things, key=lambda other: abs(other.x - thing.x) + abs(other.y - thing.y))
            assert (match.shape, match.colour) == (thing.shape, thing.colour)
            assert abs(match.x - thing.x) < 0.02
            assert abs(match.y - thing.y) < 0.02
            assert abs(match.size - thing.size) < 0.03


def test_images_of_other_prompts_are_not_taken_for_right():
    """An image of another prompt of the category is right only where chance makes it so."""
    rng = np.random.default_rng(9)
    prompts = make_prompts(120, seed=3)
    wrong = {category: [] for category in CATEGORIES}
    for i, prompt in enumerate(prompts):
        other = prompts[120 * (i // 120) + (i + 61) % 120]
        if other.text != prompt.text:
            wrong[prompt.category].append(is_correct(np.asarray(render(scene_for(other, rng), 32)), prompt))
    chance = {"single_object": 0.3, "colors": 0.25, "two_object": 0.25, "counting": 0.15, "position": 0.1}
    for category, outcomes in wrong.items():
        assert np.mean(outcomes) <= chance.get(category, 0.05), category


def test_each_category_has_its_own_rule():
    def image(*things: tuple[str, str, float, float]) -> np.ndarray:
        scene = Scene("grey", tuple(Thing(shape, colour, x, y, 0.3) for colour, shape, x, y in things))
        return np.asarray(render(scene, 32))

    by_text = {}
    for prompt in make_prompts(400, seed=0):
        by_text.setdefault((prompt.category, prompt.text), prompt)

    single, colour = by_text["single_object", "a red circle"], by_text["colors", "a red circle"]
    red, blue = ("red", "circle", 0.25, 0.25), ("blue", "circle", 0.75, 0.75)
    assert is_correct(image(red), single) and is_correct(image(blue), single)
    assert not is_correct(image(red, blue), single)
    assert not is_correct(image(("red", "square", 0.5, 0.5)), single)
    assert is_correct(image(("red", "square", 0.5, 0.5)), colour) and not is_correct(image(blue), colour)
    two = by_text["counting", "two red circles"]
    assert is_correct(image(red, blue), two)
    assert not is_correct(image(red), two)
    assert not is_correct(image(red, blue, ("red", "circle", 0.75, 0.25)), two)

    position = next(p for (c, _), p in by_text.items() if c == "position" and p.relation == "left")
    (ca, sa), (cb, sb) = position.looks
    assert is_correct(image((ca, sa, 0.25, 0.5), (cb, sb, 0.75, 0.5)), position)
    assert is_correct(image((ca, sa, 0.25, 0.2), (cb, sb, 0.75, 0.8)), position)
    assert not is_correct(image((cb, sb, 0.25, 0.5), (ca, sa, 0.75, 0.5)), position)
    assert not is_correct(image((ca, sa, 0.5, 0.2), (cb, sb, 0.5, 0.8)), position)

    attribution = next(p for (c, _), p in by_text.items() if c == "color_attr")
    (ca, sa), (cb, sb) = attribution.looks
    assert is_correct(image((ca, sa, 0.25, 0.25), (cb, sb, 0.75, 0.75)), attribution)
    assert not is_correct(image((cb, sa, 0.25, 0.25), (ca, sb, 0.75, 0.75)), attribution)


def test_touching_things_of_two_colours_are_separated():
    scene = Scene("white", (Thing("square", "red", 0.3, 0.5, 0.4), Thing("square", "blue", 0.65, 0.5, 0.4)))
    things = detect(np.asarray(render(scene, 32))).things
    assert sorted((t.shape, t.colour) for t in things) == [("square", "blue"), ("square", "red")]


def test_what_is_no_thing_is_not_detected_and_what_is_no_shape_has_none():
    for level in (0, 10, 100, 128, 255):
        assert detect(np.full((32, 32, 3), level, np.uint8)).things == ()
    speck = np.full((32, 32, 3), 248, np.uint8)
    speck[4:7, 4:7] = COLOURS["red"]
    assert detect(speck).things == ()
    stripe = np.full((32, 32, 3), 248, np.uint8)
    stripe[15:18] = COLOURS["red"]
    (thing,) = detect(stripe).things
    assert (thing.shape, thing.colour) == (None, "red")
    rng = np.random.default_rng(0)
    detect(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8))  # noise raises nothing
    for colour in COLOURS.values():
        detect(np.full((24, 40, 3), colour, np.uint8))


def test_a_count_that_differs_is_named():
    with pytest.raises(ValueError, match="1 images for 6 prompts"):
        score_prompts([np.zeros((32, 32, 3), np.uint8)], make_prompts(1, 0))
