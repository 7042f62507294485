"""The words of a prompt: openings are left out, adjectives stand in front, nothing that is asked is lost."""

import pytest

from components.toyworld.parsing import parse
from components.toyworld.prompts import make_prompts
from components.upsampling.content_words import content_words
from components.upsampling.prompt_cleaning import are_statements, open_places, prompt_units, units_of
from components.upsampling.prompt_edits import joined


@pytest.mark.parametrize(
    ("prompt", "rest"),
    [
        ("show me a cat", "a cat"),
        ("A photo of two cats", "Two cats"),
        ("I would like to see the top of a hill", "The top of a hill"),
        ("The wall is red. Draw a cat.", "The wall is red. A cat."),
        ("on a hill, an image of a cat", "on a hill, an image of a cat"),  # no opening: "on" may not be lost
        ("a sketch of a cat", "a sketch of a cat"),  # a style is asked for
        ("there is a cat", "there is a cat"),
        ("picture", "picture"),
        ("a cat on a photo", "a cat on a photo"),
        ("", ""),
    ],
)
def test_openings_that_say_nothing_are_left_out(prompt, rest):
    assert joined(prompt_units(prompt)) == rest


@pytest.mark.parametrize(
    ("prompt", "rest"),
    [
        ("a circle that is large and red", "a large red circle"),
        ("A cat which is orange on a mat", "An orange cat on a mat"),
        ("an owl that is small", "a small owl"),
        ("two street signs that are red and a cat", "two red street signs and a cat"),
        ("a dog and a cat that is black and a cow", "a dog and a black cat and a cow"),
        ("a woman who is a doctor", "a woman who is a doctor"),
        ("a car that is left of a tree", "a car that is left of a tree"),
        ("a dog that sleeps", "a dog that sleeps"),
        ("that is red", "that is red"),
        ("a dog that is", "a dog that is"),
    ],
)
def test_adjectives_of_a_relative_clause_stand_before_their_noun(prompt, rest):
    assert joined(prompt_units(prompt)) == rest


def test_the_statements_of_a_prompt_are_those_of_its_words():
    """Of the toy world: what the parser reads in the cleaned words is what the prompt states."""
    for prompt in make_prompts(150, 3):
        cleaned = joined(prompt_units(prompt.text))
        assert parse(cleaned) == prompt.statements, prompt.text
        assert sorted(content_words(cleaned)) == sorted(content_words(prompt.text))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("The background is black. A red circle.", 5),
        ("a cat. the cat is on a mat", 6),
        ("there is a cat", 0),
        ("this is a cat that is black", 0),
        ("a cat on a mat", 0),
    ],
)
def test_a_sentence_that_states_something_is_a_statement(prompt, words):
    assert sum(are_statements(units_of(prompt))) == words


def test_a_place_of_two_words_is_one_unit():
    assert units_of("at Top  Left and left, top leftmost") == [
        *["at", "Top Left", "and", "left", ",", "top", "leftmost"],
    ]


@pytest.mark.parametrize(
    ("prompt", "opening"),
    [
        ("a cat on the left", ["on"]),
        ("At top left, a cat and a dog in the middle", ["At", "in"]),
        ("a cat towards the bottom right corner", ["towards"]),
        ("a cat on the left of a dog in front of a wall", []),
        ("a cat on a mat to the left", []),
        ("a cat at", []),
    ],
)
def test_the_words_for_a_place_are_known(prompt, opening):
    units = units_of(prompt)
    assert [u for u, opens in zip(units, open_places(units), strict=True) if opens] == opening
