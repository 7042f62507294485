"""Every manner is read back to what it was written from; what people type is read; the rest is refused."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.toyworld.captions import state_all, state_short
from components.toyworld.layout import Wanted, draw_looks, draw_scene_of
from components.toyworld.manners import (
    BACKGROUNDS,
    HELD_OUT_BACKGROUNDS,
    HELD_OUT_OPENINGS,
    HELD_OUT_PLACES,
    OPENINGS,
    PLACES,
    Manner,
    draw_held_out_manner,
    draw_manner,
    shuffled,
    write,
)
from components.toyworld.parsing import parse
from components.toyworld.prompts import _state_some
from components.toyworld.statements import Claim, Statements

MANNERS = st.builds(
    Manner,
    opening=st.sampled_from((*OPENINGS, *HELD_OUT_OPENINGS)),
    place=st.sampled_from((*PLACES, *HELD_OUT_PLACES)),
    background=st.sampled_from((*BACKGROUNDS, *HELD_OUT_BACKGROUNDS)),
    place_first=st.booleans(),
    sentences=st.booleans(),
    sizes=st.sampled_from((("small", "large"), ("little", "big"))),
    short_relations=st.booleans(),
    digits=st.booleans(),
    adjectives_after=st.booleans(),
    capital=st.booleans(),
    period=st.booleans(),
)


@st.composite
def statements(draw: st.DrawFn) -> Statements:
    """Of any scene, held out or not: short, long, or some of it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    looks = draw_looks(rng, draw(st.sampled_from(("single", "pair", "group", "mixed"))))
    scene = draw_scene_of(rng, [Wanted(look) for look in looks])
    how = draw(st.sampled_from(("short", "long", "some")))
    if how == "some":
        return shuffled(_state_some(scene, rng), rng)
    stated = {"short": state_short, "long": state_all}[how](scene)
    return shuffled(stated, rng)


@settings(max_examples=500, deadline=None)
@given(statements(), MANNERS)
def test_what_is_written_in_any_manner_is_read_back(stated, manner):
    assert parse(write(stated, manner)) == stated


def test_every_choice_of_a_manner_is_one_that_is_tried():
    assert {field.name for field in fields(Manner)} == {
        "opening", "place", "background", "place_first", "sentences", "sizes", "short_relations", "digits",
        "adjectives_after", "capital", "period",
    }  # fmt: skip


def test_training_and_held_out_manners_use_all_of_their_words_and_none_of_the_others():
    rng = np.random.default_rng(0)
    training = [draw_manner(rng) for _ in range(400)]
    held_out = [draw_held_out_manner(rng) for _ in range(400)]
    for manners, openings, places, backgrounds in (
        (training, OPENINGS, PLACES, BACKGROUNDS),
        (held_out, HELD_OUT_OPENINGS, HELD_OUT_PLACES, HELD_OUT_BACKGROUNDS),
    ):
        assert {manner.opening for manner in manners} == set(openings)
        assert {manner.place for manner in manners} == set(places)
        assert {manner.background for manner in manners} == set(backgrounds)
    assert not any(manner.adjectives_after for manner in training)
    assert not set(OPENINGS) & set(HELD_OUT_OPENINGS)
    assert not set(PLACES) & set(HELD_OUT_PLACES)
    assert not set(BACKGROUNDS) & set(HELD_OUT_BACKGROUNDS)


def one(size=None, colour="red", shape="circle", *cells: str) -> Claim:
    return Claim(1, size, colour, shape, cells)


RED, BLUE = one(), one(None, "blue", "square")


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("A red circle.", Statements((RED,))),
        ("  a   RED\u00a0circle ", Statements((RED,))),
        ("red circle", Statements((RED,))),
        ("the red circle", Statements((RED,))),
        ("1 red circle", Statements((RED,))),
        ("one red circle", Statements((RED,))),
        ("a red-circle", Statements((RED,))),
        ("a picture of a red circle", Statements((RED,))),
        ("Picture of red circle", Statements((RED,))),
        ("an image showing a red circle", Statements((RED,))),
        ("a photo of a red circle", Statements((RED,))),
        ("there is a red circle", Statements((RED,))),
        ("Draw me a red circle", Statements((RED,))),
        ("please show me a red circle", Statements((RED,))),
        ("I want to see a red circle", Statements((RED,))),
        ("circle", Statements((one(None, None),))),
        ("a red shape", Statements((one(None, "red", None),))),
        ("a red object", Statements((one(None, "red", None),))),
        ("a violet star", Statements((one(None, "purple", "star"),))),
        ("3 red stars", Statements((Claim(3, None, "red", "star"),))),
        ("There are two crosses", Statements((Claim(2, None, None, "cross"),))),
        ("a big red circle", Statements((one("large"),))),
        ("a tiny red circle", Statements((one("small"),))),
        ("a large, red circle", Statements((one("large"),))),
        ("a circle that is large and red", Statements((one("large"),))),
        ("a red circle, which is large", Statements((one("large"),))),
        ("a red circle in the upper-left corner", Statements((one(None, "red", "circle", "top left"),))),
        ("in the top left corner, a red circle", Statements((one(None, "red", "circle", "top left"),))),
        ("at the top left there is a red circle", Statements((one(None, "red", "circle", "top left"),))),
        ("In the top left corner draw a red circle", Statements((one(None, "red", "circle", "top left"),))),
        (
            "at the top left, please show me a red circle",
            Statements((one(None, "red", "circle", "top left"),)),
        ),
        ("a red circle at the bottom-right", Statements((one(None, "red", "circle", "bottom right"),))),
        ("a red circle at the center", Statements((one(None, "red", "circle", "centre"),))),
        ("a red circle in the middle of the image", Statements((one(None, "red", "circle", "centre"),))),
        ("a red circle on the left side", Statements((one(None, "red", "circle", "left"),))),
        ("a red circle at the very top", Statements((one(None, "red", "circle", "top"),))),
        (
            "a large yellow star at top left on a white background",
            Statements((one("large", "yellow", "star", "top left"),), None, "white"),
        ),
        (
            "two big red circles at top left and bottom right",
            Statements((Claim(2, "large", "red", "circle", ("top left", "bottom right")),)),
        ),
        ("a red circle on a gray background", Statements((RED,), None, "grey")),
        ("a red circle on white", Statements((RED,), None, "white")),
        ("White background, a red circle", Statements((RED,), None, "white")),
        ("a red circle, background: white", Statements((RED,), None, "white")),
        ("The background is white. A red circle", Statements((RED,), None, "white")),
        ("a red circle, a blue square", Statements((RED, BLUE))),
        ("a red circle & a blue square", Statements((RED, BLUE))),
        ("a red circle. a blue square.", Statements((RED, BLUE))),
        (
            "a red circle, a blue square, and a green cross",
            Statements((RED, BLUE, one(None, "green", "cross"))),
        ),
        ("a red circle left of a blue square", Statements((RED, BLUE), "left")),
        ("a red circle is on the right of the blue square", Statements((RED, BLUE), "right")),
        ("a red circle under a blue square", Statements((RED, BLUE), "below")),
        ("a red circle above and left of a blue square", Statements((RED, BLUE), "above left")),
        ("a red circle with a blue square to its left", Statements((RED, BLUE), "right")),
        ("a red circle with a blue square above it", Statements((RED, BLUE), "below")),
    ],
)
def test_what_people_type_is_understood(text, stated):
    assert parse(text) == stated


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", ".", "a", "red", "above", "the background is white",
        "a dog", "a red dog", "something red", "not a red circle", "a red circle with a hat",
        "red stars", "some red circles", "five red circles", "a red circles", "two red circle",
        "a red blue circle", "a small large circle",
        "a red circle at top left at bottom", "two circles at top left",
        "a red circle at top left and bottom",
        "a red circle on a white background on a black background",
        "a red circle to the left of", "a red circle next to a blue square",
        "two red circles above a blue square",
        "a red circle left of a blue square above a green star",
        "Buy red star stickers online | best prices", "IMG_0042.JPG", "Ein Bild mit einer Figur in Rot",
    ],
)  # fmt: skip
def test_what_is_not_of_the_grammar_has_no_statements(text):
    assert parse(text) is None


@given(st.text(max_size=80))
def test_no_text_raises_anything(text):
    parse(text)


@given(
    st.lists(
        st.sampled_from("a two red big circle circles , . and at the top left of on white background".split())
    )
)
def test_no_word_of_the_grammar_is_passed_over(words):
    """Whatever parses states each colour, shape, size and background that stands in it."""
    text = " ".join(words)
    stated = parse(text)
    if stated is not None:
        assert sum(claim.colour == "red" for claim in stated.claims) == words.count("red")
        assert sum(claim.size == "large" for claim in stated.claims) == words.count("big")
        assert len(stated.claims) == words.count("circle") + words.count("circles")
        assert (stated.background == "white") == ("white" in words)
