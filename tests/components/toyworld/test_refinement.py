"""Texts about the toy world beside each other: what refines a text, and what contradicts itself."""

import numpy as np
import pytest

from components.toyworld.captions import caption_long
from components.toyworld.layout import draw_scene
from components.toyworld.parsing import parse
from components.toyworld.refinement import is_consistent, refines
from components.toyworld.statements import Statements

PAIR = "a small red star at {} {} a small blue circle at {}"


def stated(text: str) -> Statements:
    found = parse(text)
    assert found is not None, text
    return found


@pytest.mark.parametrize(
    ("first", "relation", "second", "holds"),
    [
        ("top left", "to the left of", "top right", True),
        ("top left", "above and to the left of", "bottom right", True),
        ("top left", "to the left of", "bottom right", True),  # a diagonal pair is in both of its relations
        ("top right", "to the left of", "top left", False),
        ("bottom left", "to the right of", "top left", False),  # one column
        ("top left", "above and to the left of", "top right", False),  # one row
        ("top left", "to the left of", "top left", False),  # one cell, where two do not fit
    ],
)
def test_a_relation_must_agree_with_the_places_beside_it(first, relation, second, holds):
    assert is_consistent(stated(PAIR.format(first, relation, second))) is holds


def test_a_place_that_is_open_agrees_with_any_relation():
    assert is_consistent(stated("a red star to the left of a blue circle"))
    assert is_consistent(stated("a red star at top right to the left of a blue circle"))


def test_the_captions_of_the_web_do_not_contradict_themselves():
    rng = np.random.default_rng(11)
    captions = [caption_long(draw_scene(rng), rng) for _ in range(2000)]
    assert [text for text in captions if not is_consistent(stated(text))] == []


def test_a_relation_is_stated_by_the_cells_of_one_row():
    written = stated("a small red star at left and a small blue circle at right on a grey background")
    assert refines(written, stated("a red star to the left of a blue circle"))
    assert refines(written, stated("a blue circle to the right of a red star"))
    assert not refines(written, stated("a red star above a blue circle"))
    assert not refines(written, stated("a red star to the right of a blue circle"))
