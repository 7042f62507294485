"""Caption truth: true captions count as true and complete, whatever their manner; others' do not."""

import numpy as np
import pytest

from components.toyworld.caption_truth import measure_truth
from components.toyworld.captions import caption_long, caption_short
from components.toyworld.layout import draw_scene
from components.toyworld.scene import Scene, Thing

RNG = np.random.default_rng(0)
SCENES = [draw_scene(RNG) for _ in range(400)]
RED = Thing("circle", "red", 0.2, 0.2, 0.3)
BLUE = Thing("square", "blue", 0.8, 0.8, 0.3)


def test_true_captions_of_every_manner_are_true_and_the_long_ones_complete():
    rng = np.random.default_rng(1)
    long = measure_truth((caption_long(scene, rng), scene) for scene in SCENES)
    short = measure_truth((caption_short(scene, rng), scene) for scene in SCENES)
    assert (long.entirely_true, long.complete) == (1, 1)
    assert (short.entirely_true, short.complete) == (1, 0)


def test_captions_of_other_scenes_are_hardly_ever_true():
    rng = np.random.default_rng(2)
    others = [*SCENES[1:], SCENES[0]]
    long = measure_truth(
        (caption_long(other, rng), scene) for other, scene in zip(others, SCENES, strict=True)
    )
    assert long.entirely_true < 0.01 and long.complete < 0.01


@pytest.mark.parametrize(
    ("text", "true", "complete"),
    [
        (
            "a small red circle at top left and a small blue square at bottom right on a white background",
            1,
            1,
        ),
        (
            "there is a little red circle at the top left. the background is white",
            1,
            0,
        ),  # one thing is left out
        (
            "a red circle at top left and a small blue square at bottom right on a white background",
            1,
            0,
        ),  # a size
        ("a small red circle and a small blue square at bottom right on a white background", 1, 0),  # a place
        ("a small red circle at top left and a small blue square at bottom right", 1, 0),  # the background
        ("a small red circle at top left and a small blue square at bottom on a white background", 0, 0),
        ("a small red circle at top left, and so on", 0, 0),  # does not parse
        ("", 0, 0),
    ],
)
def test_what_is_missing_and_what_is_wrong_are_told_apart(text, true, complete):
    truth = measure_truth([(text, Scene("white", (RED, BLUE)))])
    assert (truth.entirely_true, truth.complete) == (true, complete)


def test_shares_are_over_all_captions():
    scene = Scene("white", (RED,))
    truth = measure_truth(
        [("a red circle", scene), ("a blue circle", scene), ("a red circle", scene), ("x", scene)]
    )
    assert (truth.entirely_true, truth.complete) == (0.5, 0)


def test_no_captions_have_no_share():
    with pytest.raises(ValueError, match="no captions"):
        measure_truth([])
