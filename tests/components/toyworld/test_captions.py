"""Captions are true of their own scene and of none that differs in one thing that they state."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from components.conditioning.config import TextConfig
from components.conditioning.text import LearnedText
from components.toyworld.captions import caption_long, caption_short, state_all, state_short, states_all
from components.toyworld.parsing import parse
from components.toyworld.scene import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing, cell, size_word
from components.toyworld.statements import are_exact
from tests.caption_judgement import is_complete, is_true


def pair(dx: float, dy: float) -> Scene:
    """A red circle, and a small blue square at (dx, dy) from it."""
    return Scene(
        "black",
        (
            Thing("circle", "red", 0.5 - dx / 2, 0.5 - dy / 2, 0.42),
            Thing("square", "blue", 0.5 + dx / 2, 0.5 + dy / 2, 0.3),
        ),
    )


def test_the_plain_captions_say_what_a_person_would():
    assert caption_short(Scene("grey", (Thing("star", "orange", 0.5, 0.5, 0.5),))) == "an orange star"
    one = Scene("grey", (Thing("cross", "red", 0.3, 0.7, 0.3),))
    assert caption_long(one) == "a small red cross at bottom left on a grey background"
    assert caption_short(pair(0.45, 0.05)) == "a red circle to the left of a blue square"
    assert caption_long(pair(0.45, 0.05)) == (
        "a large red circle at left to the left of a small blue square at right on a black background"
    )
    assert caption_short(pair(0.0, -0.45)) == "a blue square above a red circle"
    assert caption_short(pair(0.45, 0.4)) == "a red circle and a blue square"
    assert caption_long(pair(0.45, 0.4)) == (
        "a large red circle at top left above and to the left of a small blue square at bottom right"
        " on a black background"
    )
    group = Scene(
        "white", tuple(Thing("cross", "red", x, y, 0.3) for x, y in ((0.25, 0.3), (0.8, 0.25), (0.7, 0.7)))
    )
    assert caption_short(group) == "three red crosses"
    assert caption_long(group) == (
        "three small red crosses at top left, top right and bottom right on a white background"
    )


@pytest.mark.parametrize("caption", [caption_short, caption_long])
def test_every_caption_is_true_and_complete_in_every_manner(scenes, caption):
    rng = np.random.default_rng(1)
    for scene in scenes[:1500]:
        for text in (caption(scene), caption(scene, rng)):
            assert is_true(text, scene), (text, scene)
            assert is_complete(text, scene), (text, scene)
            stated = parse(text)
            assert stated is not None
            assert states_all(stated) == (caption is caption_long)


def test_the_same_scene_is_phrased_in_many_ways(scenes):
    rng = np.random.default_rng(2)
    for scene in scenes[:10]:
        assert len({caption_short(scene, rng) for _ in range(60)}) > 15
        assert len({caption_long(scene, rng) for _ in range(60)}) > 40


def changed(scene: Scene, which: int, **attributes: object) -> Scene:
    things = list(scene.things)
    things[which] = replace(things[which], **attributes)
    return replace(scene, things=tuple(things))


def other_looks(scene: Scene) -> Iterator[Scene]:
    """The scene with one thing of another colour or another shape, and without one thing."""
    for i, thing in enumerate(scene.things):
        yield from (changed(scene, i, colour=name, rgb=None) for name in COLOURS if name != thing.colour)
        yield from (changed(scene, i, shape=name) for name in SHAPES if name != thing.shape)
        yield replace(scene, things=scene.things[:i] + scene.things[i + 1 :])


def other_details(scene: Scene) -> Iterator[Scene]:
    """The scene with one thing of another size or in another cell, or on another background."""
    for i, thing in enumerate(scene.things):
        yield changed(scene, i, size=0.45 if size_word(thing) == "small" else 0.3)
        for x, y in ((0.2, 0.2), (0.5, 0.2), (0.8, 0.8), (0.2, 0.5)):
            if cell(replace(thing, x=x, y=y)) != cell(thing):
                yield changed(scene, i, x=x, y=y)
    yield from (replace(scene, background=name) for name in BACKGROUNDS if name != scene.background)


def test_a_caption_is_false_of_a_scene_with_another_look_or_a_thing_less(scenes):
    rng = np.random.default_rng(3)
    for scene in scenes[:80]:
        short, long = caption_short(scene, rng), caption_long(scene, rng)
        for other in other_looks(scene):
            assert not is_true(short, other), (short, other)
            assert not is_true(long, other), (long, other)


def test_a_long_caption_is_false_of_a_scene_with_another_size_place_or_background(scenes):
    rng = np.random.default_rng(4)
    for scene in scenes[:150]:
        long = caption_long(scene, rng)
        for other in other_details(scene):
            assert not is_true(long, other), (long, other)


def test_a_short_caption_leaves_size_place_and_background_open(scenes):
    for scene in scenes[:100]:
        if state_short(scene).relation is None:
            assert all(is_true(caption_short(scene), other) for other in other_details(scene))


def test_a_caption_of_a_scene_with_one_thing_more_is_not_complete(scenes):
    """Nor exact; and where the thing is one of those that it speaks of, not true either."""
    for scene in scenes[:200]:
        more = replace(scene, things=(*scene.things, replace(scene.things[0], x=0.5, y=0.5)))
        assert not is_complete(caption_short(scene), more)
        assert not is_true(caption_short(scene), more)
        assert not are_exact(state_all(scene), more)


def test_a_mirrored_relation_is_false(scenes):
    checked = 0
    for scene in scenes[:600]:
        text = caption_short(scene)
        if (relation := state_short(scene).relation) is not None:
            turned = [replace(t, x=1 - t.x) if relation in ("left", "right") else replace(t, y=1 - t.y)
                      for t in scene.things]  # fmt: skip
            assert is_true(text, scene) and not is_true(text, replace(scene, things=tuple(turned))), text
            checked += 1
    assert checked > 100


def test_every_long_caption_fits_the_tokens_that_the_model_reads(training_texts):
    """With a vocabulary fitted on the training texts as `train` fits it, at its defaults."""
    text = TextConfig()
    encoder = LearnedText.fit(training_texts, text.vocabulary, text.max_length)
    captions = training_texts[1::5]
    assert len(captions) == 4000
    encoded = encoder.tokenizer.encode_batch_fast(captions)
    assert max(len(one.ids) for one in encoded) + 1 <= text.max_length  # one starts the text
