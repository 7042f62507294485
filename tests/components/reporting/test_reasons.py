"""Reasons of rejects: each has words and a family, and is counted."""

from components.corpus.schemas import Reason
from components.reporting.reasons import FAMILIES, count_reasons, reason_words


def test_every_reason_has_words_and_stands_in_one_family():
    listed = [reason for family in FAMILIES.values() for reason in family]
    assert sorted(listed) == sorted(Reason)
    assert all(reason_words(reason) != reason for reason in Reason)


def test_reasons_are_counted_most_frequent_first():
    counted = count_reasons({"alt_url": 3, "duplicate": 7, "from_the_future": 5, "alt_spam": 0})
    assert [(count.reason, count.records) for count in counted] == [
        ("duplicate", 7),
        ("from_the_future", 5),
        ("alt_url", 3),
    ]
    assert counted[1].family == "Other"
