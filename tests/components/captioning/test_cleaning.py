"""Cleaning: what captioners wrap around a caption comes off, and what is none is rejected with a reason."""

from dataclasses import replace

import numpy as np
import pytest

from components.captioning.cleaning import check_caption, clean_caption, repetition, without_cut_sentence
from components.captioning.kinds import LONG, SHORT
from components.corpus.schemas import Reason
from components.toyworld.captions import caption_long, caption_short
from components.toyworld.layout import draw_scene

CASES = [
    # preambles
    ("The image shows a red circle.", "A red circle."),
    ("the picture depicts two dogs", "two dogs"),
    ("This image features a cat on a mat.", "A cat on a mat."),
    ("In this image, we can see a bridge.", "A bridge."),
    ("In the photo there are two boats.", "Two boats."),
    ("Caption: 'A cat'", "A cat"),
    ('Sure! Here is a detailed description of the image: "A cat on a mat."', "A cat on a mat."),
    ("ASSISTANT: A cat.", "A cat."),
    # quotes
    ('"A cat on a mat."', "A cat on a mat."),
    ("“A cat.”", "A cat."),
    ('A sign that says "stop"', 'A sign that says "stop"'),
    ('"Stop" and "go" signs', '"Stop" and "go" signs'),
    # no full stop at the end
    ("A cat on a mat. The mat is red", "A cat on a mat. The mat is red"),
    ("a red circle above a blue square", "a red circle above a blue square"),
    ("A portrait of Dr. No", "A portrait of Dr. No"),
    ("A price of 1.5 euros", "A price of 1.5 euros"),
    # repeats
    ("A dog. It is brown. A dog. It is brown.", "A dog. It is brown."),
    ("a cat on a mat, a cat on a mat, a cat on a mat", "a cat on a mat"),
    ("it is very very good", "it is very very good"),
    ("it is very very very very good", "it is very good"),
    # characters
    ("  a\u0000 red \n\n circle\u200b ", "a red circle"),
    ("", ""),
]


@pytest.mark.parametrize(("output", "caption"), CASES)
def test_the_output_becomes_the_caption(output, caption):
    assert clean_caption(output) == caption


@pytest.mark.parametrize(("output", "caption"), CASES)
def test_cleaning_what_is_clean_changes_nothing(output, caption):
    assert clean_caption(caption) == caption


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("A cat on a mat. The mat is made of", "A cat on a mat."),
        ("A cat. A mat. Its", "A cat. A mat."),
        ("A cat on a mat.", "A cat on a mat."),
        ("A portrait of Dr. No with a", "A portrait of Dr. No with a"),
        ("a cat on a mat that", "a cat on a mat that"),
        ("", ""),
    ],
)
def test_of_a_text_that_was_cut_whole_sentences_stay(text, whole):
    assert without_cut_sentence(text) == whole


@pytest.mark.parametrize(
    "text",
    ["A boy reading a caption: the text is small", "A scene of the image of a king", "Sure thing, a band"],
)
def test_words_of_a_preamble_inside_a_caption_stay(text):
    assert clean_caption(text) == text


def test_every_true_caption_of_the_toy_world_passes_as_it_is():
    rng = np.random.default_rng(0)
    for scene in (draw_scene(rng) for _ in range(300)):
        for text in (caption_short(scene, rng), caption_long(scene, rng)):
            assert clean_caption(text) == text
            assert check_caption(text, replace(LONG, min_words=2)) is None


@pytest.mark.parametrize("text", ["", "...", "123 456", "\ufffd\ufffd"])
def test_a_caption_without_words_is_empty(text):
    assert check_caption(clean_caption(text), SHORT).reason is Reason.CAPTION_EMPTY


def test_a_kind_says_how_many_words_its_caption_needs():
    three = replace(SHORT, min_words=3)
    assert check_caption("a cat", three).detail == "2 words, at least 3 wanted"
    assert check_caption("a fat cat", three) is None


def test_a_loop_is_rejected_unless_the_kind_allows_it():
    looped = "a cat and a dog and a hen and a dog and a hen and a cat and a dog and a hen"
    assert check_caption(looped, LONG).reason is Reason.CAPTION_REPETITION
    assert check_caption(looped, replace(LONG, max_repetition=1.0)) is None


def test_repetition_is_the_share_of_triples_seen_before():
    assert repetition(["a", "b", "c", "d"]) == 0
    assert repetition(["a", "b", "c", "A", "B", "c"]) == pytest.approx(1 / 4)  # abc bca cab (abc again)
    assert repetition([]) == 0


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "I’m sorry, I cannot help with identifying people.",
        "I can't describe this image.",
        "I cannot provide a description of this picture.",
        "Sure! I'm unable to help with that.",
        "Unfortunately, I am not able to see the image.",
        "As an AI language model, I do not see images.",
        "No image was provided. Please upload one.",
        "It seems that you have not uploaded an image.",
    ],
)
def test_a_refusal_is_no_caption(text):
    assert check_caption(clean_caption(text), LONG).reason is Reason.CAPTION_REFUSED


@pytest.mark.parametrize(
    "text",
    [
        "A card that says \"I'm sorry, I can't come\".",
        "A sorry looking dog that cannot be helped.",
        "An AI generated image of a language model.",
        "A sign: no image was provided.",
        "I love NY shirt on a hanger.",
        "It seems to be raining on the street in this image.",
    ],
)
def test_a_caption_that_speaks_of_refusals_is_a_caption(text):
    assert check_caption(clean_caption(text), SHORT) is None
