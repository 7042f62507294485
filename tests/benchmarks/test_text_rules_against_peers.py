"""A text is checked in well under a millisecond of a quiet core."""

from text_rules_against_peers import made_texts, microseconds


def test_texts_are_checked_in_fractions_of_a_millisecond():
    assert microseconds(made_texts(100))["straightshot"] < 5000
