"""A scene: its words for size, place and relation, its way through JSON, and how it is drawn."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from components.toyworld.outlines import corners_of
from components.toyworld.render import render
from components.toyworld.scene import (
    BACKGROUNDS,
    COLOUR_SPREAD,
    COLOURS,
    SHAPES,
    Scene,
    Thing,
    cell,
    relation_of,
    size_word,
)


def at(x: float, y: float, size: float = 0.3) -> Thing:
    return Thing("circle", "red", x, y, size)


def test_a_cell_is_where_the_centre_is():
    places = [[cell(at(x, y)) for x in (0.25, 0.5, 0.75)] for y in (0.25, 0.5, 0.75)]
    assert places == [
        ["top left", "top", "top right"],
        ["left", "centre", "right"],
        ["bottom left", "bottom", "bottom right"],
    ]


@pytest.mark.parametrize(
    ("dx", "dy", "relation"),
    [
        (0.4, 0.0, "left"),
        (-0.4, 0.1, "right"),
        (0.1, 0.4, "above"),
        (0.0, -0.4, "below"),
        (0.4, 0.3, "above left"),
        (-0.3, 0.4, "above right"),
        (0.4, -0.4, "below left"),
        (-0.4, -0.3, "below right"),
    ],
)
def test_a_relation_is_along_one_axis_or_along_both(dx, dy, relation):
    assert relation_of(at(0.5, 0.5), at(0.5 + dx, 0.5 + dy)) == relation


def test_sizes_have_two_words():
    assert [size_word(at(0.5, 0.5, size)) for size in (0.26, 0.33, 0.40, 0.52)] == [
        "small", "small", "large", "large",
    ]  # fmt: skip


def test_colours_stay_apart_however_they_vary():
    """Of two names the means are further apart than what both may differ from them in one channel."""
    palette = [*COLOURS.values(), *BACKGROUNDS.values()]
    for a, b in itertools.combinations(palette, 2):
        assert np.abs(np.subtract(a, b)).max() > 2 * COLOUR_SPREAD
    assert not set(COLOURS) & set(BACKGROUNDS)


def test_scenes_survive_json(scenes):
    for scene in scenes[:200]:
        assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene


@pytest.mark.parametrize("size", [32, 64, 100])
def test_a_render_shows_the_colours_where_the_scene_says(size):
    red, blue = (211, 30, 40), (20, 70, 249)
    scene = Scene(
        "black",
        (
            Thing("circle", "red", 0.27, 0.5, 0.42, 0.0, red),
            Thing("square", "blue", 0.73, 0.5, 0.3, 8.0, blue),
        ),
        (20, 4, 12),
        softness=0.01,
    )
    image = render(scene, size)
    assert (image.size, image.mode) == ((size, size), "RGB")
    for thing, paint in zip(scene.things, (red, blue), strict=True):
        assert image.getpixel((int(thing.x * size), int(thing.y * size))) == paint
    assert image.getpixel((0, 0)) == (20, 4, 12)


def test_a_scene_without_paints_has_the_means_of_its_names():
    image = render(Scene("brown", (at(0.5, 0.5),)), 32)
    assert (image.getpixel((16, 16)), image.getpixel((1, 1))) == (COLOURS["red"], BACKGROUNDS["brown"])


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, float)


@pytest.mark.parametrize("shape", SHAPES)
def test_place_turn_and_softness_are_seen_below_a_pixel(shape):
    """Half a pixel at 32, six degrees, a soft edge: each changes the image, as the lattice's did not."""
    still = Scene("white", (Thing(shape, "blue", 0.5, 0.5, 0.4),))
    (thing,) = still.things
    moved = Scene("white", (Thing(shape, "blue", 0.5 + 0.5 / 32, 0.5, 0.4),))
    turned = Scene("white", (Thing(shape, "blue", 0.5, 0.5, 0.4, 6.0),))
    soft = Scene("white", still.things, softness=0.012)
    changes = {
        name: np.abs(pixels(render(scene, 32)) - pixels(render(still, 32))).max()
        for name, scene in (("moved", moved), ("turned", turned), ("soft", soft))
    }
    assert changes["moved"] > 60
    assert changes["soft"] > 20
    assert changes["turned"] > (20 if shape != "circle" else -1)  # a turned circle is the same circle
    shift = corners_of(moved.things[0]) - corners_of(thing)
    assert np.allclose(shift, (0.5 / 32, 0))
