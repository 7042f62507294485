"""The toy world: its captions are true, its scenes clear of every threshold, its held-out pairs kept out."""

import itertools

import numpy as np
import pytest

from components.toyworld.captions import (
    caption_long,
    caption_short,
    cell,
    is_complete,
    is_true,
    size_word,
    statements,
)
from components.toyworld.prompts import CATEGORIES, held_out_pairs, make_prompts, scene_for
from components.toyworld.render import render
from components.toyworld.scene import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    SHAPES,
    Scene,
    Thing,
    draw_scene,
    is_held_out,
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = np.random.default_rng(7)
    return [draw_scene(rng) for _ in range(3000)]


def pair(a: tuple[str, str], b: tuple[str, str], dx: float, dy: float, sizes=(0.42, 0.3)) -> Scene:
    (ca, sa), (cb, sb) = a, b
    return Scene(
        "black",
        (
            Thing(sa, ca, 0.5 - dx / 2, 0.5 - dy / 2, sizes[0]),
            Thing(sb, cb, 0.5 + dx / 2, 0.5 + dy / 2, sizes[1]),
        ),
    )


def test_every_canonical_caption_is_true_and_complete(scenes):
    for scene in scenes:
        for caption in (caption_short(scene), caption_long(scene)):
            assert is_true(caption, scene), (caption, scene)
            assert is_complete(caption, scene), (caption, scene)


def test_a_long_caption_is_true_of_nothing_else(scenes):
    wrong = [
        (caption_long(a), b)
        for a, b in itertools.pairwise(scenes)
        if caption_long(a) != caption_long(b)
        and is_true(caption_long(a), b)
        and is_complete(caption_long(a), b)
    ]
    assert not wrong


def test_captions_are_short_and_of_a_small_vocabulary(scenes):
    words = {w for scene in scenes for w in caption_long(scene).replace(",", "").split()}
    assert max(len(caption_long(scene).split()) for scene in scenes) <= 29
    assert len(words) < 60
    assert all(caption_long(scene) == caption_long(scene).lower() for scene in scenes)


RED, BLUE = ("red", "circle"), ("blue", "square")


def test_captions_say_what_a_person_would():
    assert caption_short(Scene("grey", (Thing("star", "orange", 0.5, 0.5, 0.5),))) == "an orange star"
    one = Scene("grey", (Thing("cross", "red", 0.3, 0.7, 0.3),))
    assert caption_long(one) == "a small red cross at bottom left on a grey background"
    beside = pair(RED, BLUE, 0.45, 0.05)
    assert caption_short(beside) == "a red circle to the left of a blue square"
    assert caption_long(beside) == (
        "a large red circle at left to the left of a small blue square at right on a black background"
    )
    assert caption_short(pair(RED, BLUE, 0.0, -0.45)) == "a red circle below a blue square"
    diagonal = pair(RED, BLUE, 0.45, 0.4)
    assert caption_short(diagonal) == "a red circle and a blue square"
    assert caption_long(diagonal) == (
        "a large red circle at top left above and to the left of a small blue square at bottom right"
        " on a black background"
    )
    group = Scene(
        "white", tuple(Thing("cross", "red", x, y, 0.3) for x, y in ((0.25, 0.3), (0.8, 0.25), (0.7, 0.7)))
    )
    assert caption_short(group) == "three red crosses"
    assert caption_long(group) == (
        "three red crosses at top left, top right and bottom right on a white background"
    )


@pytest.mark.parametrize(
    ("caption", "true"),
    [
        ("a red circle to the left of a blue square", True),
        ("A red circle to the left of a blue square.", True),
        ("a blue square to the right of a red circle", True),
        ("a red circle", True),  # not complete, but true
        ("a circle and a square", True),
        ("a blue square and a red circle on a black background", True),
        ("a red circle to the right of a blue square", False),
        ("a red circle above a blue square", False),
        ("a red square to the left of a blue circle", False),
        ("a small red circle to the left of a small blue square", False),
        ("two red circles", False),
        ("no green stars", True),
        ("a red circle and a blue square on a white background", False),
        ("a red circle at right", False),
        ("a red circle at left", True),
        ("a red circle and a red circle", False),
        ("a red circles", False),
        ("a red circle to the left of", False),
        ("the picture shows a red circle", False),
        ("", False),
    ],
)
def test_the_truth_of_a_caption_is_decided(caption, true):
    assert is_true(caption, pair(RED, BLUE, 0.45, 0.05)) is true


def test_statements_hold_all_that_was_said():
    parsed = statements(
        "a large red circle above and to the left of a small blue square on a black background"
    )
    assert parsed is not None
    assert (parsed.relation, parsed.background) == ("above left", "black")
    assert [(c.count, c.size, c.colour, c.shape) for c in parsed.claims] == [
        (1, "large", "red", "circle"),
        (1, "small", "blue", "square"),
    ]


def test_scenes_are_clear_of_edges_overlaps_and_thresholds(scenes):
    for scene in scenes:
        for thing in scene.things:
            assert 0.26 <= thing.size <= 0.55
            assert abs(thing.size - 0.355) >= 0.029
            assert min(thing.x, thing.y) - thing.size / 2 >= 0.019
            assert max(thing.x, thing.y) + thing.size / 2 <= 0.981
        for a, b in itertools.combinations(scene.things, 2):
            apart = max(abs(a.x - b.x), abs(a.y - b.y)) - (a.size + b.size) / 2
            assert apart >= 0.0595
        if len(scene.things) == 1:
            assert min(abs(v - edge) for v in (thing.x, thing.y) for edge in (0.41, 0.59)) > 0.039


def test_the_mix_of_kinds_is_as_declared(scenes):
    kinds = [
        "single"
        if len(s.things) == 1
        else "group"
        if len({(t.colour, t.shape) for t in s.things}) == 1
        else "pair"
        if len(s.things) == 2
        else "mixed"
        for s in scenes
    ]
    for kind, share in KINDS.items():
        assert kinds.count(kind) / len(kinds) == pytest.approx(share, abs=0.03)
    counts = [len(s.things) for s, kind in zip(scenes, kinds, strict=True) if kind == "group"]
    assert set(counts) == {2, 3, 4}
    assert {t.shape for s in scenes for t in s.things} == set(SHAPES)
    assert {t.colour for s in scenes for t in s.things} == set(COLOURS)
    assert {cell(s.things[0]) for s in scenes if len(s.things) == 1} == {
        "top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right",
    }  # fmt: skip
    assert {size_word(s.things[0]) for s in scenes if len(s.things) == 1} == {"small", "large"}


def test_colours_are_far_apart():
    palette = [*COLOURS.values(), *BACKGROUNDS.values()]
    assert min(np.linalg.norm(np.subtract(a, b)) for a, b in itertools.combinations(palette, 2)) > 90
    assert not set(COLOURS) & set(BACKGROUNDS)


def test_held_out_pairs_are_a_symmetric_tenth_and_in_no_scene(scenes):
    looks = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    pairs = list(itertools.combinations(looks, 2))
    assert all(is_held_out(a, b) == is_held_out(b, a) for a, b in pairs)
    assert 0.07 < np.mean([is_held_out(a, b) for a, b in pairs]) < 0.13
    assert {shape for a, _ in held_out_pairs() for shape in a[1:]} == set(SHAPES)
    for scene in scenes:
        for a, b in itertools.combinations(scene.things, 2):
            assert (a.colour, a.shape) == (b.colour, b.shape) or not is_held_out(
                (a.colour, a.shape), (b.colour, b.shape)
            )


def test_scenes_are_a_function_of_the_seed_and_survive_json():
    def draw() -> list[Scene]:
        rng = np.random.default_rng(3)
        return [draw_scene(rng) for _ in range(50)]

    assert draw() == draw()
    assert [Scene.from_dict(scene.to_dict()) for scene in draw()] == draw()


def test_a_render_shows_the_colours_where_the_scene_says():
    scene = pair(RED, BLUE, 0.45, 0.0)
    for size in (32, 64, 100):
        image = render(scene, size)
        assert (image.size, image.mode) == ((size, size), "RGB")
        for thing in scene.things:
            assert image.getpixel((int(thing.x * size), int(thing.y * size))) == COLOURS[thing.colour]
        assert image.getpixel((0, 0)) == BACKGROUNDS["black"]


def test_prompts_cover_every_category_and_use_only_held_out_pairs():
    prompts = make_prompts(120, seed=0)
    assert [p.category for p in prompts] == [c for c in CATEGORIES for _ in range(120)]
    assert make_prompts(120, seed=0) == prompts != make_prompts(120, seed=1)
    for prompt in prompts:
        if prompt.category in ("two_object", "position", "color_attr"):
            assert is_held_out(*prompt.looks)
        else:
            assert len(prompt.looks) == 1
        assert statements(prompt.text) is not None, prompt.text
    texts = [p.text for p in prompts if p.category == "counting"]
    assert len(set(texts)) == 120  # of 120 there are


def test_a_scene_for_a_prompt_makes_the_prompt_true():
    rng = np.random.default_rng(0)
    for prompt in make_prompts(60, seed=5):
        scene = scene_for(prompt, rng)
        assert is_true(prompt.text, scene), (prompt.text, scene)
        assert is_complete(prompt.text, scene)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="'heap' is unknown; use one of single"):
        draw_scene(np.random.default_rng(0), "heap")
