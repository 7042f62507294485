"""Where things stand: every scene is clear of each threshold, and nothing but its words is fixed."""

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest
from scipy import stats

from components.toyworld.captions import caption_long
from components.toyworld.layout import KINDS, Wanted, draw_scene, draw_scene_of
from components.toyworld.outlines import corners_of
from components.toyworld.scene import (
    BACKGROUNDS,
    CELLS,
    COLOURS,
    RELATIONS,
    SHAPES,
    Scene,
    Thing,
    cell,
    relation_of,
    size_word,
)

PIXEL = 1 / 32  # of the side, at the smallest resolution that the margins are made for
ROUNDED = 2e-5  # places and sizes are written with five digits


def kind_of(scene: Scene) -> str:
    looks = {(thing.colour, thing.shape) for thing in scene.things}
    if len(scene.things) == 1:
        return "single"
    if len(looks) == 1:
        return "group"
    return "pair" if len(scene.things) == 2 else "mixed"


def boxes(scene: Scene) -> list[np.ndarray]:
    """Low and high (x, y) of each thing as it is drawn, turned."""
    return [np.array([c.min(0), c.max(0)]) for c in map(corners_of, scene.things)]


def every_thing(scenes: list[Scene]) -> list[Thing]:
    return [thing for scene in scenes for thing in scene.things]


def test_nothing_touches_the_edge_of_the_image(scenes):
    corners = np.concatenate([corners_of(thing) for thing in every_thing(scenes)])
    assert corners.min() >= 0.02 - 2 * ROUNDED
    assert corners.max() <= 0.98 + 2 * ROUNDED


def test_things_keep_almost_two_pixels_apart(scenes):
    for scene in scenes:
        for a, b in itertools.combinations(boxes(scene), 2):
            assert np.maximum(b[0] - a[1], a[0] - b[1]).max() >= 0.06 - 2 * ROUNDED > 1.9 * PIXEL


def test_every_word_for_size_is_clear_of_the_other(scenes):
    words = defaultdict(list)
    for thing in every_thing(scenes):
        words[size_word(thing)].append(thing.size)
    assert min(words["small"]) >= 0.26 and max(words["small"]) <= 0.33
    assert min(words["large"]) >= 0.40 and max(words["large"]) <= 0.52
    assert min(words["large"]) - max(words["small"]) > 2 * PIXEL


def test_every_centre_is_clear_of_the_cells_edges(scenes):
    centres = np.array([(thing.x, thing.y) for thing in every_thing(scenes)])
    for edge in (0.41, 0.59):
        assert np.abs(centres - edge).min() >= 0.025 - ROUNDED


def test_every_pair_is_clearly_beside_above_or_diagonal(scenes):
    for scene in scenes:
        if len(scene.things) == 2:
            a, b = scene.things
            lesser, greater = sorted((abs(a.x - b.x), abs(a.y - b.y)))
            assert abs(lesser / greater - 0.5) >= 0.1 - 1e-3
            assert (lesser / greater > 0.5) == (" " in relation_of(a, b))


def test_colours_vary_around_their_own_name_and_are_nearest_to_it(scenes):
    palette = COLOURS | BACKGROUNDS
    painted = {(thing.colour, thing.paint) for thing in every_thing(scenes)}
    painted |= {(scene.background, scene.paint) for scene in scenes}
    offsets = []
    for name, paint in painted:
        assert min(palette, key=lambda other: np.linalg.norm(np.subtract(palette[other], paint))) == name
        offsets.append(np.subtract(paint, palette[name]))
    assert np.abs(offsets).max() == 14
    assert np.std(offsets, 0).min() > 6


def test_turns_and_softness_use_their_whole_range(scenes):
    turns = np.array([thing.turn for thing in every_thing(scenes)])
    softness = np.array([scene.softness for scene in scenes])
    assert stats.kstest(turns, stats.uniform(-12, 24).cdf).pvalue > 1e-3
    assert stats.kstest(softness, stats.uniform(0, 0.012).cdf).pvalue > 1e-3


def test_the_mix_of_kinds_is_what_is_declared(scenes):
    kinds = Counter(map(kind_of, scenes))
    for kind, share in KINDS.items():
        assert kinds[kind] / len(scenes) == pytest.approx(share, abs=0.03), kind
    for kind, counts in (("group", {2, 3, 4}), ("mixed", {3, 4})):
        assert {len(scene.things) for scene in scenes if kind_of(scene) == kind} == counts


def test_backgrounds_are_even(scenes):
    assert stats.chisquare(list(Counter(scene.background for scene in scenes).values())).pvalue > 1e-3


def test_every_colour_shape_cell_size_and_relation_is_common(scenes):
    things = every_thing(scenes)
    alone = [scene.things[0] for scene in scenes if len(scene.things) == 1]
    pairs = [scene.things for scene in scenes if len(scene.things) == 2]
    shares = [
        (Counter(thing.colour for thing in things), COLOURS, 0.09),
        (Counter(thing.shape for thing in things), SHAPES, 0.15),
        (Counter(map(cell, things)), CELLS, 0.008),
        (Counter(map(cell, alone)), CELLS, 0.05),
        (Counter(map(size_word, alone)), ("small", "large"), 0.4),
        (Counter(relation_of(a, b) for a, b in pairs), RELATIONS, 0.06),
    ]
    for counts, names, least in shares:
        assert set(names) <= set(counts)
        assert min(counts.values()) >= least * counts.total(), counts


def test_places_and_sizes_are_on_no_lattice(scenes):
    """Where in its pixel a centre lies, and how large a thing is within its word, is even."""
    things = every_thing(scenes)
    for along in ([thing.x for thing in things], [thing.y for thing in things]):
        counts = np.histogram(np.array(along) / PIXEL % 1, bins=16, range=(0, 1))[0]
        assert counts.min() > 0.8 * counts.mean()
        assert counts.max() < 1.2 * counts.mean()
    small = [t.size for scene in scenes if len(scene.things) == 1 for t in scene.things if t.size < 0.365]
    assert stats.kstest(small, stats.uniform(0.26, 0.07).cdf).pvalue > 1e-3


def spread(values: list[float]) -> float:
    """Between the first and the last tenth, in pixels."""
    low, high = np.quantile(values, (0.1, 0.9))
    return float(high - low) / PIXEL


def test_things_of_one_size_and_cell_stand_pixels_apart(scenes):
    groups = defaultdict(list)
    for scene in scenes:
        if len(scene.things) == 1:
            groups[size_word(scene.things[0]), cell(scene.things[0])].append(scene.things[0])
    assert len(groups) == 18
    for things in groups.values():
        assert spread([thing.x for thing in things]) > 2
        assert spread([thing.y for thing in things]) > 2


@pytest.mark.parametrize(
    "wanted",
    [
        [Wanted(("red", "circle"), "large", "top left")],
        [Wanted(("red", "circle"), "small", "centre")],
        [Wanted(("red", "circle"), "small", "left"), Wanted(("blue", "star"), "small", "right")],
        [Wanted(("red", "cross"), "small", place) for place in ("top left", "top right", "bottom")],
    ],
)
def test_a_long_caption_does_not_determine_the_image(wanted):
    """On the lattice it did: the teacher drew in one step what any number of steps would have given."""
    rng = np.random.default_rng(0)
    alike = [draw_scene_of(rng, wanted, background="white") for _ in range(800)]
    captions = Counter(map(caption_long, alike))
    text, count = captions.most_common(1)[0]
    assert count > 80
    same = [scene for scene in alike if caption_long(scene) == text]
    for place in range(len(wanted)):
        assert spread([scene.things[place].x for scene in same]) > 1.5
        assert spread([scene.things[place].y for scene in same]) > 1.5
        assert np.ptp([scene.things[place].size for scene in same]) > 0.05
        assert np.ptp([scene.things[place].turn for scene in same]) > 20


def test_given_things_get_what_is_wanted_and_the_rest_varies():
    rng = np.random.default_rng(1)
    wanted = [Wanted(("green", "star"), "large"), Wanted(("red", "circle"), None, "bottom right")]
    scenes = [draw_scene_of(rng, wanted, relation="left") for _ in range(100)]
    for star, circle in (scene.things for scene in scenes):
        assert (star.colour, star.shape, size_word(star)) == ("green", "star", "large")
        assert (circle.colour, circle.shape, cell(circle)) == ("red", "circle", "bottom right")
        assert relation_of(star, circle) == "left"
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {size_word(scene.things[1]) for scene in scenes} == {"small", "large"}


def test_what_cannot_be_placed_is_named():
    crowd = [Wanted(("red", "circle"), "large", "centre")] * 2
    with pytest.raises(ValueError, match="no scene was found with"):
        draw_scene_of(np.random.default_rng(0), crowd)


def test_scenes_are_a_function_of_the_seed():
    def draw(seed: int) -> list[Scene]:
        rng = np.random.default_rng(seed)
        return [draw_scene(rng) for _ in range(50)]

    assert draw(3) == draw(3) != draw(4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_can_be_asked_for(kind):
    rng = np.random.default_rng(2)
    assert {kind_of(draw_scene(rng, kind)) for _ in range(30)} == {kind}


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="'heap' is unknown; use one of single"):
        draw_scene(np.random.default_rng(0), "heap")
