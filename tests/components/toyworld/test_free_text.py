"""Prompts in free words: understood as what they say, or not at all.

free_prompts.jsonl: five sets of 120 prompts with what each states, by a language model as many kinds of
people who knew what can be drawn and neither grammar nor code (a and b by one, c, d and e each by another).
The reader was made with a, c and d in sight; b and e were kept apart.
"""

import json
from pathlib import Path

import pytest

from components.toyworld.free_text import in_plain_words, read_freely
from components.toyworld.parsing import parse
from components.toyworld.prompts import make_prompts
from components.toyworld.refinement import refines
from components.toyworld.statements import Claim, Statements

WRITTEN = Path(__file__).with_name("free_prompts.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (
            "A big yellow star, top left, white backdrop",
            "a large yellow star at top left on a white background",
        ),
        ("red circle, blue square", "a red circle and a blue square"),
        ("Can you draw a small orange square?", "a small orange square"),
        ("red circle left, blue square right", "a red circle at left and a blue square at right"),
        ("left: red circle, right: blue square", "a red circle at left and a blue square at right"),
        ("a lone red disc in the middle", "a red circle at centre"),
        ("a pair of enormous green plus signs", "two large green crosses"),
        ("red circles, three of them", "three red circles"),
        ("three circle red in black", "three red circles on a black background"),
        ("a pink star on top of a cyan circle", "a pink star above a cyan circle"),
        ("a green cross with a violet star sitting below it", "a green cross above a purple star"),
        ("a single star over a white background", "a star on a white background"),
        ("a purpel triangel up in the top corner, on the left", "a purple triangle at top left"),
        (
            "four pink stars, one in each corner",
            "four pink stars at top left, top right, bottom left and bottom right",
        ),
        ("Color=red, shape=circle, position=bottom", "a red circle at bottom"),
        ("minimalist poster, small yellow star, 4k --ar 1:1", "a small yellow star"),
        (
            "For lesson 2: three big yellow circles, please. The pupils will count them. Nothing else.",
            "three large yellow circles",
        ),
        (
            "- a pink circle\n- a red square\n- the circle is to the right of the square",
            "a pink circle to the right of a red square",
        ),
        (
            "Below the huge blue square, one small green circle.",
            "a large blue square above a small green circle",
        ),
        ("a bleu star udner a pnik crosss", "a blue star below a pink cross"),
        ("a cyan circle and a pink square, both small", "a small cyan circle and a small pink square"),
        (
            "a green triangle to the upper left of a yellow circle",
            "a green triangle above and to the left of a yellow circle",
        ),
        ("yo can u do 2 lil pink stars on a blk bg thx", "two small pink stars on a black background"),
        ("um a red cross, like a plus sign, any size will do", "a red cross"),
        ("a blue circle x3", "three blue circles"),
    ],
)
def test_what_is_said_is_put_into_plain_words(text, plain):
    assert parse(text) is None
    assert in_plain_words(text) == plain
    assert read_freely(text) == parse(plain)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a dog",
        "a dog and a red circle",
        "a striped star",
        "a circle without a square",
        "not a red circle",
        "a small large circle",
        "a white circle",  # the world has no such thing
        "five stars",
        "red circles",
        "two stars at the top, left and right",
        "a star to the left of two crosses",
        "circle at the top, star at the top",  # they do not fit
        "a circle on a black and white background",
        "a quarter of the way down a star",
        "the number 7 and a star",
        "a red rectangle",
        "a dog. A red circle.",
        "a red circle and a blue square, the same size, small",
        "two stars, one larger than the other",
        "a star across a circle",
        "something cute",
        "two dogs, a red star",
    ],
)
def test_what_may_say_more_than_is_understood_is_left_alone(text):
    assert read_freely(text) is None
    assert in_plain_words(text) == text


def test_free_reading_agrees_with_the_grammar():
    for prompt in make_prompts(60, seed=11):
        assert read_freely(prompt.text) == prompt.statements
        assert in_plain_words(prompt.text) == prompt.text


@pytest.mark.parametrize(("sets", "understood", "right"), [("acd", 0.8, 1.0), ("be", 0.75, 0.96)])
def test_most_of_what_other_people_type_is_understood(sets, understood, right):
    rows = [row for row in map(json.loads, WRITTEN) if row["set"] in sets]
    read = [(parse(row["text"]) or read_freely(row["text"]), stated(row)) for row in rows]
    known = [(found, said) for found, said in read if found is not None]
    assert len(known) >= understood * len(rows)
    assert sum(refines(found, said) and refines(said, found) for found, said in known) >= right * len(known)


def stated(row: dict) -> Statements:
    claims = (
        Claim(c["count"], c["size"], c["colour"], c["shape"], tuple(c["places"])) for c in row["claims"]
    )
    return Statements(tuple(claims), row["relation"], row["background"])
