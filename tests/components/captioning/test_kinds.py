"""Kinds of captions: the prompt hash tells apart whatever changes a caption."""

from dataclasses import replace

from components.captioning.kinds import LONG, SHORT, prompt_hash


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
