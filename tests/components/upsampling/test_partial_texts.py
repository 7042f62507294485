"""Prompts made from records: parts of what is true, which lead to the long caption by edits."""

import numpy as np
import pytest

from components.toyworld.captions import caption_long, caption_short, states_all
from components.toyworld.held_out import states_held_out
from components.toyworld.manners import HELD_OUT_OPENINGS
from components.toyworld.parsing import parse
from components.toyworld.refinement import refines
from components.toyworld.web import new_scene
from components.upsampling.content_words import content_words, forms_of, stands_in, words_of
from components.upsampling.edit_tokens import OTHER
from components.upsampling.partial_texts import RecordCaptions, draw_edits, part_of
from components.upsampling.prompt_cleaning import units_of
from components.upsampling.prompt_edits import Edits, joined, may_drop

NATURAL = RecordCaptions(
    "k",
    "A small brown dog sleeps on a red sofa in front of a window. There is a lamp beside it.",
    "a dog on a sofa",
    "our Bello",
)


def toy_records(count: int) -> list[RecordCaptions]:
    records = []
    for key in range(count):
        rng = np.random.default_rng(key)
        scene = new_scene(rng, labelled=False)
        records.append(RecordCaptions(str(key), caption_long(scene, rng), caption_short(scene, rng)))
    return records


@pytest.fixture(scope="module")
def drawn() -> list[tuple[RecordCaptions, Edits]]:
    return [
        (record, draw_edits(record, np.random.default_rng([epoch, int(record.key)])))
        for record in toy_records(300)
        for epoch in range(2)
    ]


def prompt_of(edits: Edits) -> str:
    return joined(edits.units)


def test_the_edits_of_every_prompt_write_its_long_caption(drawn):
    for record, edits in drawn:
        written, wanted = units_of(edits.applied().lower()), units_of(record.long.lower())
        if written == wanted:
            continue
        # A made-up word stands in for one, or an opening of the caption's was none of the prompt's.
        changed = [pair for pair in zip(written, wanted, strict=False) if pair[0] != pair[1]]
        assert len(written) == len(wanted) and len(changed) == 1 and not may_drop(changed[0][0]), edits


def test_a_prompt_states_nothing_that_its_caption_does_not(drawn):
    parsed = [(parse(prompt_of(edits)), parse(record.long)) for record, edits in drawn]
    known = [(asked, written) for asked, written in parsed if asked is not None]
    assert len(known) > 0.5 * len(drawn)
    assert all(refines(written, asked) for asked, written in known)


def test_prompts_leave_open_everything_that_can_be_left_open(drawn):
    known = [stated for _, edits in drawn if (stated := parse(prompt_of(edits))) is not None]
    complete = sum(map(states_all, known)) / len(known)
    assert 0.05 < complete < 0.4
    for says in (
        lambda s: s.background is not None,
        lambda s: any(claim.size for claim in s.claims),
        lambda s: any(claim.cells for claim in s.claims),
        lambda s: all(claim.colour for claim in s.claims),
    ):
        share = sum(map(says, known)) / len(known)
        assert 0.15 < share < 0.97


def test_nothing_held_out_is_learned_from(drawn):
    prompts = [prompt_of(edits).lower() for _, edits in drawn]
    assert not any(prompt.startswith(HELD_OUT_OPENINGS) for prompt in prompts)
    for prompt in prompts:
        stated = parse(prompt)
        assert stated is None or not states_held_out(stated), prompt


def test_some_prompts_have_words_that_no_caption_has(drawn):
    known = {unit.lower() for record, _ in drawn for unit in units_of(record.long)}
    small = sum(OTHER in edits.units for _, edits in drawn) / len(drawn)
    unknown = [
        (unit, edit)
        for _, edits in drawn
        for unit, edit in zip(edits.units, edits.edits, strict=True)
        if unit.lower() not in known and unit != OTHER and not may_drop(unit)
    ]
    assert 0.1 < small < 0.22
    assert len(unknown) > 0.01 * len(drawn) and all(edit.keep for _, edit in unknown)


def test_a_part_of_a_natural_caption_keeps_its_subject_and_its_words():
    long_forms = forms_of(words_of(NATURAL.long))
    parts = {part_of(NATURAL.long, NATURAL.short, np.random.default_rng(seed)) for seed in range(200)}
    assert len(parts) > 20
    for part in parts:
        assert {"dog", "sofa"} <= set(words_of(part)), part
        assert all(stands_in(word, long_forms) for word in content_words(part)), part
    assert any("window" not in part for part in parts) and any("lamp" in part for part in parts)


def test_an_alt_text_of_something_else_is_no_prompt():
    prompts = [prompt_of(draw_edits(NATURAL, np.random.default_rng(seed))) for seed in range(200)]
    assert not any("bello" in prompt.lower() for prompt in prompts)


def test_the_draw_is_a_function_of_record_and_generator():
    record = toy_records(1)[0]
    assert draw_edits(record, np.random.default_rng(5)) == draw_edits(record, np.random.default_rng(5))
    assert len({prompt_of(draw_edits(record, np.random.default_rng(seed))) for seed in range(40)}) > 10


@pytest.mark.parametrize(
    "long", ["", ".", "on a sofa.", "!!! ???", "日本語のテキスト", "At the left, running."]
)
def test_any_caption_can_be_learned_from(long):
    for seed in range(20):
        edits = draw_edits(RecordCaptions("k", long, None, "an alt text"), np.random.default_rng(seed))
        assert len(units_of(edits.applied())) == len(units_of(long))
