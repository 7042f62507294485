"""Prompts in free words: understood as what they say, or not at all.

free_prompts.jsonl: 240 prompts with what each states, written by a language model as twelve kinds of people
who knew the world and neither grammar nor code. The reader was made with the first half in sight.
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
        "halfway down the left edge a star",
        "the number 7 and a star",
    ],
)
def test_what_may_say_more_than_is_understood_is_left_alone(text):
    assert read_freely(text) is None
    assert in_plain_words(text) == text


def test_free_reading_agrees_with_the_grammar():
    for prompt in make_prompts(60, seed=11):
        assert read_freely(prompt.text) == prompt.statements
        assert in_plain_words(prompt.text) == prompt.text


@pytest.mark.parametrize(("half", "understood"), [(WRITTEN[:120], 0.85), (WRITTEN[120:], 0.75)])
def test_most_of_what_other_people_type_is_understood(half, understood):
    read = [(parse(row["text"]) or read_freely(row["text"]), stated(row)) for row in map(json.loads, half)]
    known = [(found, said) for found, said in read if found is not None]
    assert len(known) >= understood * len(half)
    right = sum(refines(found, said) and refines(said, found) for found, said in known)
    assert right >= 0.96 * len(known)


def stated(row: dict) -> Statements:
    claims = (
        Claim(c["count"], c["size"], c["colour"], c["shape"], tuple(c["places"])) for c in row["claims"]
    )
    return Statements(tuple(claims), row["relation"], row["background"])
