"""Coverage: true renders are at the floor, and a model that collapsed in any way is far above it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from components.evaluation.coverage import (
    CoveragePrompt,
    coverage_distance,
    coverage_floor,
    coverage_prompts,
    open_attributes,
    shares_of,
    total_variation,
)
from components.randomness import derive_seed
from components.toyworld.parsing import parse
from components.toyworld.prompts import FORMS, scene_for
from components.toyworld.render import render
from components.toyworld.scene import Scene, Thing

SIDE, EACH = 32, 64
Change = Callable[[Scene, Scene], Scene]  # (a scene of the prompt, the first one of it) -> what is rendered


@dataclass(frozen=True)
class Setup:
    prompts: list[CoveragePrompt]
    floor: float

    def excess(self, change: Change) -> float:
        """The distance above the floor of a model that renders changed scenes."""
        images = []
        for index, one in enumerate(self.prompts):
            rng = np.random.default_rng(derive_seed(1, "model", index))
            scenes = [scene_for(one.prompt, rng) for _ in range(EACH)]
            images += [np.asarray(render(change(scene, scenes[0]), SIDE)) for scene in scenes]
        return coverage_distance(np.stack(images), self.prompts) - self.floor


@pytest.fixture(scope="module")
def setup() -> Setup:
    prompts = coverage_prompts(6, scenes=300, seed=0)
    return Setup(prompts, coverage_floor(prompts, EACH, seed=0))


def test_true_renders_are_at_the_floor(setup):
    assert 0 < setup.floor < 0.15
    assert abs(setup.excess(lambda scene, first: scene)) < 0.02


def test_one_image_for_each_prompt_is_a_collapse(setup):
    assert setup.excess(lambda scene, first: first) > 0.15


def test_one_background_for_all_is_a_collapse(setup):
    assert setup.excess(lambda scene, first: replace(scene, background="white", background_rgb=None)) > 0.15


def test_one_place_for_all_is_a_collapse(setup):
    def centred(scene: Scene, first: Scene) -> Scene:
        return replace(scene, things=tuple(replace(t, x=0.5, y=0.5) for t in scene.things[:1]))

    assert setup.excess(centred) > 0.15


def test_empty_images_cover_nothing(setup):
    assert setup.excess(lambda scene, first: replace(scene, things=())) > 0.3


def test_the_prompts_are_short_ones_and_leave_open_what_they_do_not_state(setup):
    assert [one.prompt.form for one in setup.prompts] == [FORMS[0]] * 6
    for one in setup.prompts:
        assert list(one.expected) == ["cell", "size", "background"]
        assert all(sum(shares.values()) == pytest.approx(1) for shares in one.expected.values())


@pytest.mark.parametrize(
    ("text", "left_open"),
    [
        ("a red circle", ("cell", "size", "background")),
        ("a large red circle", ("cell", "background")),
        ("a red circle at the top left", ("size", "background")),
        ("a red circle on a white background", ("cell", "size")),
        ("a small red circle at the top left, on a white background", ()),
    ],
)
def test_what_a_text_states_is_not_open(text, left_open):
    assert open_attributes(parse(text)) == left_open


def test_shares_count_things_and_give_an_empty_image_a_bin_of_its_own():
    at_left = Thing("circle", "red", 0.2, 0.5, 0.3)
    at_right = replace(at_left, x=0.8, size=0.45)
    scenes = [Scene("white", (at_left, at_right)), Scene("black", (at_left,)), Scene("white", ())]
    assert shares_of(scenes, "cell") == {"left": 0.5, "right": 0.25, "nothing": 0.25}
    assert shares_of(scenes, "size") == {"small": 0.5, "large": 0.25, "nothing": 0.25}
    assert shares_of(scenes, "background") == {"white": 2 / 3, "black": 1 / 3}


def test_total_variation_is_zero_for_one_distribution_and_one_for_disjoint_ones():
    a, b = {"x": 0.75, "y": 0.25}, {"y": 0.5, "z": 0.5}
    assert total_variation(a, a) == 0
    assert total_variation({"x": 1.0}, {"y": 1.0}) == 1
    assert total_variation(a, b) == total_variation(b, a) == 0.75


def test_a_floor_needs_more_scenes_than_images(setup):
    with pytest.raises(ValueError, match="300 scenes of a prompt give no floor for 300 images"):
        coverage_floor(setup.prompts, 300, seed=0)


def test_as_many_images_of_each_prompt_are_needed(setup):
    images = np.zeros((9, SIDE, SIDE, 3), np.uint8)
    with pytest.raises(ValueError, match="9 images of 6 prompts"):
        coverage_distance(images, setup.prompts)
