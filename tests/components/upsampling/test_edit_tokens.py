"""Edits as tokens: what is learned are the answers, and they read back as the edits."""

import pytest

from components.captioning.packing import IGNORED
from components.upsampling.edit_tokens import OTHER, EditTokens, is_edit_tokenizer, train_edit_tokenizer
from components.upsampling.prompt_cleaning import units_of
from components.upsampling.prompt_edits import Edit, Edits, edits_of

TEXTS = ["a large red circle at the top", "a small blue square", "the background is black."] * 4


@pytest.fixture(scope="module")
def tokens() -> EditTokens:
    return EditTokens(train_edit_tokenizer(TEXTS, 400))


def read_back(tokens: EditTokens, units: tuple[str, ...], labels: list[int]) -> Edits:
    """The edits that these labels are."""
    answers = [label for label in labels if label != IGNORED]
    edits, inserted = [], []
    for token in answers:
        if token in (tokens.keep, tokens.drop):
            edits.append(Edit(tokens.decode(inserted), token == tokens.keep))
            inserted = []
        else:
            inserted.append(token)
    assert inserted.pop() == tokens.end
    return Edits(units, tuple(edits), tokens.decode(inserted))


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [
        ("a red circle", "a large red circle at the top."),
        ("A ZEBRA, 2 owls", "a zébra's ZEBRA, two owls"),  # words that no caption had
        ("a blue square", "a blue square"),
    ],
)
def test_the_labels_are_the_edits(tokens, prompt, caption):
    edits = edits_of(prompt, caption)
    ids, labels = tokens.sequence(edits)
    assert read_back(tokens, edits.units, labels) == edits
    assert all(label in (token, IGNORED) for token, label in zip(ids, labels, strict=True))
    assert len(ids) == len(labels)


def test_the_prompt_stands_first_and_each_of_its_words_before_its_answer(tokens):
    edits = edits_of("a red circle", "a large red circle at the top")
    ids, labels = tokens.sequence(edits)
    a, large, red, circle = (tokens.unit(word) for word in ("a", "large", "red", "circle"))
    at_the_top = tokens.units(["at", "the", "top"])
    assert ids == [
        *[*a, *red, *circle, tokens.split],
        *[*a, tokens.keep, *red, *large, tokens.keep, *circle, tokens.keep],
        *[tokens.split, *at_the_top, tokens.end],
    ]
    assert ids[: len(tokens.prompt(edits.units))] == tokens.prompt(["A", "RED", "circle"])
    assert [i for i, label in enumerate(labels) if label == IGNORED] == [0, 1, 2, 3, 4, 6, 9, 11]


def test_a_usual_word_is_one_token_and_small_words_that_no_caption_has_are_one(tokens):
    assert [len(tokens.unit(word)) for word in ("red", "circle", "background")] == [1, 1, 1]
    assert tokens.read("towards") == tokens.read("part") == tokens.read(OTHER) == [tokens.other]
    assert tokens.read("The") == tokens.unit("the") != [tokens.other]
    assert len(tokens.read("zebra")) > 1 and tokens.other not in tokens.read("zebra")


def test_a_place_of_two_words_is_one_token(tokens):
    for place in ("top left", "lower right"):
        assert len(tokens.unit(place)) == 1 and tokens.decode(tokens.unit(place)) == (place,)
    assert tokens.read("Top Left") == tokens.unit("top left") != tokens.unit("bottom left")
    assert len(tokens.units(units_of("topmost left"))) > 2


def test_any_text_survives(tokens):
    for text in ("жёлтый круг", "🟥 square", "<keep> </s>"):
        assert tokens.decode(tokens.units(units_of(text))) == tuple(units_of(text))


def test_other_tokenizers_are_told_apart(tokens):
    from components.captioning.architecture import train_tokenizer

    assert is_edit_tokenizer(tokens.tokenizer)
    assert not is_edit_tokenizer(train_tokenizer(TEXTS, 400))
