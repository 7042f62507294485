"""The checks of an upsampled prompt: what contradicts or forgets is refused, and by name."""

import pytest

from components.upsampling.prompt_checks import CHECKS, PromptChecks
from components.upsampling.upsampler_card import UpsamplerCard

TOY = PromptChecks(UpsamplerCard(checks=("toy_statements", "words"), keep_complete=True))
WORDS = PromptChecks(UpsamplerCard(checks=("words",), keep_complete=True, complete_words=6))


@pytest.mark.parametrize(
    ("prompt", "caption", "refused_by"),
    [
        ("a red circle", "a large red circle at top left on a black background", None),
        ("two red circles", "a large red circle at top and a small red circle at left", None),
        ("a circle above a star", "a red circle at top and a blue star at bottom", None),
        ("a red circle", "a large blue circle at top left", "toy_statements"),
        ("a red circle", "a red circle at top and a red star at left", "toy_statements"),  # one more
        ("a red circle on black", "a red circle at top. the background is white", "toy_statements"),
        ("a circle left of a star", "a red circle at right and a blue star at left", "toy_statements"),
        ("a circle and a star", "a circle at top and a star at top", "toy_statements"),  # in one cell
        ("a red circle", "a red red circle", "toy_statements"),
        ("a zebra", "a large red circle at top", "words"),  # no parser's: the words decide
        ("a zebra", "a striped zebra", "toy_statements"),  # nothing that the toy world can show
    ],
)
def test_the_parser_refuses_what_the_toy_world_can_not_be(prompt, caption, refused_by):
    assert TOY.refused_by([prompt], [caption]) == [refused_by]


@pytest.mark.parametrize(
    ("prompt", "caption", "refused_by"),
    [
        ("a photo of 2 grey dogs", "Two gray dogs, one of them a puppy, on a sofa.", None),
        ("a dog on a sofa", "a brown dog near a red sofa", None),  # small words may be others
        ("a dog on a sofa", "a brown dog in the grass", "words"),
        ("a dog left of a cat", "a dog and a cat", "words"),
        ("three dogs", "dogs on a lawn", "words"),
    ],
)
def test_every_word_that_carries_something_must_stand(prompt, caption, refused_by):
    assert WORDS.refused_by([prompt], [caption]) == [refused_by]


def test_each_row_has_its_own_verdict():
    prompts, captions = ["a dog", "a cat", "a dog"], ["a big dog", "a big dog", "dogs"]
    assert WORDS.refused_by(prompts, captions) == [None, "words", None]
    assert WORDS.refused_by([], []) == []


def test_what_says_all_is_found_complete():
    whole = "a large red circle at top left on a black background"
    assert TOY.is_complete(whole) and not TOY.is_complete(whole.replace("large ", ""))
    assert not TOY.is_complete("a long prompt of many words that no parser of the toy world reads")
    assert WORDS.is_complete("a prompt of six words here") and not WORDS.is_complete("a prompt of five words")
    never = PromptChecks(UpsamplerCard(checks=("toy_statements",), keep_complete=False))
    assert not never.is_complete(whole)


def test_similarity_is_not_asked_without_a_judge():
    verdicts = CHECKS["similarity"](PromptChecks(UpsamplerCard(min_similarity=0.9)), ["a"], ["b"])
    assert verdicts == [None]
