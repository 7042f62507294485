"""Kinds of captions: the prompt hash tells apart whatever changes a caption."""

import hashlib
from dataclasses import replace

import pytest

from components.captioning.kinds import LONG, SHORT, TEMPLATES, prompt_hash, template_text
from components.errors import InputError

PUBLISHED = {
    "short@1": "1960c8bd2789",
    "short@2": "24542943f3ab",
    "long@1": "7fdea03c519d",
    "long@2": "a21733a95e67",
    "hint@1": "94efed20b8c3",
}


def test_the_hash_changes_with_every_field_and_with_the_order():
    variants = [
        (SHORT, LONG),
        (LONG, SHORT),
        (replace(SHORT, prompt="What is it?"), LONG),
        (SHORT, replace(LONG, max_tokens=97)),
        (replace(SHORT, name="brief"), LONG),
        (SHORT,),
    ]
    assert len({prompt_hash(kinds) for kinds in variants}) == len(variants)


def test_the_hash_is_the_same_on_every_machine():
    assert prompt_hash((SHORT, LONG)) == "05e04b7f6b35d5e4"


def test_a_published_template_is_never_edited():
    """Captions name it by its version: a better text is a new one."""
    digests = {name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in TEMPLATES.items()}
    assert digests == PUBLISHED
    assert (SHORT.prompt, LONG.prompt) == (TEMPLATES["short@1"], TEMPLATES["long@1"])


def test_a_prompt_is_a_text_or_a_templates_name():
    assert template_text("long@2") == TEMPLATES["long@2"]
    assert template_text("What is at @2?") == "What is at @2?"
    with pytest.raises(InputError, match="no template is named 'long@99'; there are short@1, "):
        template_text("long@99")


def test_a_hint_changes_the_hash_and_is_left_out_where_there_is_no_alt_text():
    hinted = replace(SHORT, hint="It may be: {alt_text}")
    assert prompt_hash((hinted, LONG)) != prompt_hash((SHORT, LONG))
    assert hinted.prompt_for(None) == hinted.prompt_for(" ") == SHORT.prompt
    assert hinted.prompt_for("a {dog}") == f"{SHORT.prompt}\nIt may be: a {{dog}}"
    assert len(hinted.prompt_for("x" * 10**6)) < 500
