"""Edits: they make the caption of the prompt, keep what was asked, and refuse where they can not."""

import itertools

import numpy as np
import pytest

from components.toyworld.captions import caption_long
from components.toyworld.layout import draw_scene
from components.upsampling.content_words import CARRY_NOTHING
from components.upsampling.prompt_cleaning import units_of
from components.upsampling.prompt_edits import (
    Edits,
    droppable,
    edits_of,
    joined,
    may_drop,
)


def shown(edits: Edits) -> str:
    """ "+large red- circle +at top|" """
    parts = []
    for unit, edit in zip(edits.units, edits.edits, strict=True):
        parts += [*(f"+{word}" for word in edit.insert), unit if edit.keep else f"{unit}-"]
    return " ".join([*parts, "|", *edits.tail])


@pytest.mark.parametrize(
    ("prompt", "caption", "expected"),
    [
        ("a red circle", "a large red circle at top", "a +large red circle | at top"),
        ("an owl", "a small owl", "an- +a +small owl |"),
        ("a cat and a dog", "a black cat beside a dog", "a +black cat and- +beside a dog |"),
        ("2 red cats", "a red cat and a red cat", "2- +a +red +cat +and +a red +cat cats- |"),
        ("three red cats", "a big red cat and two small red cats", None),
        # Neighbours stay neighbours: the words of the blue square are not taken for the circle.
        ("a red dot", "a blue square and a red dot", "+a +blue +square +and a red dot |"),
        ("please draw me a picture of a dog.", "A dog on a sofa.", "a dog +on +a +sofa . |"),
    ],
)
def test_a_caption_is_the_prompt_with_words_inserted_and_dropped(prompt, caption, expected):
    edits = edits_of(prompt, caption)
    assert edits is not None
    assert edits.applied().lower() == caption.lower()
    if expected is not None:
        assert shown(edits) == expected


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [
        ("a red circle", "a blue circle"),  # another colour
        ("a red circle and a blue square", "a blue square and a red circle"),  # another order
        ("a zebra", "an animal in the grass"),
        ("a red circle, a red circle", "a red circle"),
        ("a dog. a cat", "a dog and a cat"),  # sentences stay apart
    ],
)
def test_no_edits_lose_what_was_asked(prompt, caption):
    assert edits_of(prompt, caption) is None


def test_every_long_caption_is_kept_and_only_its_opening_is_inserted():
    for seed in range(100):
        caption = caption_long(draw_scene(np.random.default_rng(seed)), np.random.default_rng(seed))
        edits = edits_of(caption, caption)
        assert edits is not None
        assert all(edit.keep for edit in edits.edits) and not edits.tail
        inserted = [edit.insert for edit in edits.edits if edit.insert]
        assert inserted in ([], [("a", "picture", "of")], [("an", "image", "of")])
        assert edits.applied() == caption


def test_only_small_words_numbers_places_and_marks_may_be_dropped():
    assert all(may_drop(word) for word in ("the", "of", "3", "three", "left", "above", ",", "Photo"))
    assert not any(may_drop(word) for word in ("red", "circle", "zogu", "drawing", "без", "black-and-white"))
    assert all(may_drop(word) for word in CARRY_NOTHING)
    units = ["a", "dog", ".", "a", "cat", "."]
    assert [droppable(units, at) for at in (2, 5)] == [False, True]


def test_joined_text_has_its_marks_where_they_belong():
    texts = ("a cat, a dog; a cow.", "it's a well-known man (of 60) here!", "one. two. three")
    assert all(joined(units_of(text)) == text for text in texts)
    assert joined(units_of("one. two. three"), capitals=True) == "One. Two. Three"


def test_the_alignment_is_the_best_of_all():
    """Against every monotone alignment of short texts: as many words of content, then as many small ones."""
    rng = np.random.default_rng(0)
    words = ("red", "dot", "a", "the", "cat")
    for _ in range(200):
        prompt, caption = (
            [words[i] for i in rng.integers(len(words), size=rng.integers(1, 6))] for _ in range(2)
        )
        edits = edits_of(" ".join(prompt), " ".join(caption))
        most = max(_contents(kept) for kept in _common(prompt, caption))
        if edits is None:
            assert most < _contents(prompt)
        else:
            assert most == _contents(prompt) and edits.applied() == " ".join(caption)


def _contents(words: list[str]) -> int:
    return sum(not may_drop(word) for word in words)


def _common(prompt: list[str], caption: list[str]) -> list[list[str]]:
    """Every subsequence of the prompt that is one of the caption."""
    found = []
    for count in range(len(prompt) + 1):
        for chosen in itertools.combinations(prompt, count):
            rest = iter(caption)
            if all(word in rest for word in chosen):
                found.append(list(chosen))
    return found
