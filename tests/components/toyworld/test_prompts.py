"""The held-out prompts: five forms, each true of what it stands for, and none of it ever trained on."""

import re
from collections import Counter

import numpy as np
import pytest

from components.toyworld.captions import states_all
from components.toyworld.held_out import is_held_out, states_held_out
from components.toyworld.parsing import parse
from components.toyworld.prompts import CATEGORIES, FORMS, ToyPrompt, make_prompts, scene_for
from components.toyworld.scene import BACKGROUNDS, CELLS, Scene, cell, size_word
from components.toyworld.statements import Statements, are_exact
from tests.caption_judgement import is_complete, is_true

PER_FORM = 120


@pytest.fixture(scope="module")
def prompts() -> list[ToyPrompt]:
    return make_prompts(PER_FORM, seed=0)


def of_form(prompts: list[ToyPrompt], form: str) -> list[ToyPrompt]:
    return [prompt for prompt in prompts if prompt.form == form]


def test_forms_stand_in_order_and_only_genevals_has_categories(prompts):
    assert [prompt.form for prompt in prompts] == [form for form in FORMS for _ in range(PER_FORM)]
    assert {prompt.category for prompt in prompts if prompt.form != "geneval"} == {None}
    counts = Counter(prompt.category for prompt in of_form(prompts, "geneval"))
    assert counts == {category: PER_FORM // len(CATEGORIES) for category in CATEGORIES}


def test_prompts_are_a_function_of_the_seed(prompts):
    assert make_prompts(12, seed=5) == make_prompts(12, seed=5) != make_prompts(12, seed=6)


def test_no_text_comes_twice_but_in_genevals_form(prompts):
    texts = [prompt.text for prompt in prompts if prompt.form != "geneval"]
    assert len(set(texts)) == len(texts)
    assert len({prompt.text for prompt in of_form(prompts, "geneval")}) > 0.6 * PER_FORM


def test_every_text_says_what_its_statements_are(prompts):
    for prompt in prompts:
        assert parse(prompt.text) == prompt.statements, prompt.text


def test_each_form_says_as_much_as_it_should(prompts):
    for prompt in prompts:
        stated = prompt.statements
        details = bool(stated.background) or any(claim.size or claim.cells for claim in stated.claims)
        if prompt.form in ("short", "geneval"):
            assert not details
            assert all(claim.colour and claim.shape for claim in stated.claims)
        elif prompt.form == "partial":
            assert details
            assert not states_all(stated)
        elif prompt.form == "long":
            assert states_all(stated)
    said = [states_all(prompt.statements) for prompt in of_form(prompts, "rephrased")]
    assert 0.2 < np.mean(said) < 0.5
    relations = {prompt.statements.relation for prompt in prompts if prompt.category == "position"}
    assert relations == {"left", "right", "above", "below"}


def test_what_is_asked_for_is_held_out_whatever_is_left_open(prompts):
    """Of all forms but one: those are phrased otherwise, of contents as they are seen."""
    rng = np.random.default_rng(0)
    for prompt in prompts:
        if prompt.form != "rephrased":
            assert states_held_out(prompt.statements), prompt.text
            assert is_held_out(scene_for(prompt, rng)), prompt.text


def test_no_training_scene_is_what_a_prompt_asks_for(prompts, scenes):
    for prompt in prompts:
        if prompt.form != "rephrased":
            assert not any(are_exact(prompt.statements, scene) for scene in scenes[:1000]), prompt.text


def plain(text: str) -> str:
    """In lower case, without marks."""
    return " ".join(re.sub(r"[^a-z0-9 ]", " ", text.lower().replace("&amp;", "and")).split())


def content(stated: Statements) -> object:
    """What is stated, in whatever order."""
    claims = Counter((c.count, c.size, c.colour, c.shape, tuple(sorted(c.cells))) for c in stated.claims)
    return frozenset(claims.items()), stated.background


def test_no_prompt_stands_in_a_training_text(prompts, training_texts):
    assert len(training_texts) == 20_000
    assert len(set(training_texts)) > 12_000  # a fifth of them are vague, and so are few
    trained = {plain(text) for text in training_texts}
    assert not [prompt.text for prompt in prompts if plain(prompt.text) in trained]


def test_no_training_text_says_what_a_prompt_asks_for_in_other_words(prompts, training_texts):
    """Without an opening ("a photo of"), in another order, by synonyms: read by the parser."""
    parsed = [stated for stated in map(parse, training_texts[::2]) if stated is not None]
    assert len(parsed) > 6000
    trained = set(map(content, parsed))
    asked = [prompt for prompt in prompts if prompt.form != "rephrased"]
    assert not [prompt.text for prompt in asked if content(prompt.statements) in trained]


def test_the_held_out_manners_stand_in_no_training_text(training_texts):
    phrases = ("show me", "draw ", "a photo of", "i would like", "towards", "in front of", " part", "that is")
    for text in training_texts:
        assert not any(phrase in text.lower() for phrase in phrases), text


def test_a_scene_for_a_prompt_is_exactly_what_it_states(prompts):
    rng = np.random.default_rng(1)
    for prompt in prompts:
        scene = scene_for(prompt, rng)
        assert is_true(prompt.text, scene), (prompt.text, scene)
        assert is_complete(prompt.text, scene)
        assert are_exact(prompt.statements, scene)


def test_what_a_prompt_leaves_open_varies():
    rng = np.random.default_rng(2)
    prompt = ToyPrompt("a green star", "short", Statements(parse("a green star").claims))
    scenes = [scene_for(prompt, rng) for _ in range(300)]

    def shares(values: list[str]) -> list[float]:
        return [count / len(scenes) for count in Counter(values).values()]

    for names, values, least in (
        (BACKGROUNDS, [scene.background for scene in scenes], 0.18),
        (CELLS, [cell(scene.things[0]) for scene in scenes], 0.05),
        (("small", "large"), [size_word(scene.things[0]) for scene in scenes], 0.4),
    ):
        assert set(values) == set(names)
        assert min(shares(values)) > least


def test_an_open_look_and_an_open_relation_vary():
    rng = np.random.default_rng(3)

    def drawn(text: str) -> list[Scene]:
        stated = parse(text)
        assert stated is not None
        return [scene_for(ToyPrompt(text, "partial", stated), rng) for _ in range(150)]

    assert len({scene.things[0].colour for scene in drawn("a small star at left")}) == 8
    assert len({scene.things[0].shape for scene in drawn("a small red shape at left")}) == 5
    offsets = [a.y - b.y for a, b in (s.things for s in drawn("a red circle to the left of a blue star"))]
    assert min(offsets) < -0.1 and max(offsets) > 0.1
