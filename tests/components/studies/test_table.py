"""The table of a study: intervals against a textbook's, signs against values made to have them."""

import pytest

from components.errors import InputError
from components.studies.definition import Study
from components.studies.table import StudyTable, estimate, tabulate


def study(**changes):
    values = {
        "title": "A study",
        "question": "Which?",
        "model": "student",
        "seeded": ["distill.seed"],
        "variants": {"a": [], "b": ["distill.images=1"]},
        "measures": [
            {"label": "exact", "value": "prompt_following.mean"},
            {"label": "distance", "value": "frechet", "steps": 2, "higher_is_better": False},
        ],
        "signs": [
            {"measure": "exact", "better": "a", "worse": "b", "source": "one"},
            {"measure": "distance", "better": "a", "worse": "b", "source": "two"},
        ],
    }
    return Study.model_validate({**values, **changes})


def of(exact, distance):
    return [{"exact": e, "distance": d} for e, d in zip(exact, distance, strict=True)]


def test_the_interval_is_students_t_over_seeds():
    found = estimate([1.0, 2.0, 4.0])
    # The standard error is sqrt(7/3 / 3); t of 2 degrees of freedom at .975 is 4.303 (any table of it).
    half = 4.302653 * (7 / 3 / 3) ** 0.5
    assert found.mean == pytest.approx(7 / 3)
    assert (found.low, found.high) == pytest.approx((7 / 3 - half, 7 / 3 + half), rel=1e-6)


def test_one_seed_has_no_interval_and_decides_nothing():
    assert (estimate([0.5]).low, estimate([0.5]).high) == (None, None)
    table = tabulate("s", study(), {"a": of([0.9], [0.1]), "b": of([0.1], [0.9])})
    assert [sign.verdict for sign in table.signs] == ["undecided", "undecided"]


def test_signs_are_decided_by_the_paired_difference_in_the_direction_of_the_measure():
    # Seeds differ by far more than the variants do; within a seed the difference is nearly the same.
    a = of([0.10, 0.50, 0.90], [0.30, 0.60, 0.95])
    b = of([0.05, 0.46, 0.84], [0.25, 0.54, 0.90])
    exact, distance = tabulate("s", study(), {"a": a, "b": b}).signs
    assert (exact.verdict, exact.difference.mean) == ("agrees", pytest.approx(0.05))
    assert (distance.verdict, distance.difference.mean) == ("disagrees", pytest.approx(-0.16 / 3))
    noisy = tabulate("s", study(), {"a": of([0.1, 0.9, 0.4], [0, 0, 0]), "b": of([0.9, 0.1, 0.4], [0, 0, 0])})
    assert [sign.verdict for sign in noisy.signs] == ["undecided", "undecided"]


def test_a_table_is_read_as_it_was_written():
    table = tabulate("s", study(), {"a": of([0.9, 0.8], [0.1, 0.2]), "b": of([0.1, 0.2], [0.9, 0.8])})
    assert StudyTable.from_json(table.to_json()) == table
    with pytest.raises(InputError, match="not the table of a study"):
        StudyTable.from_json('{"rows": 3}')


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"signs": [{"measure": "x", "better": "a", "worse": "b", "source": "s"}]},
            "there are exact, distance",
        ),
        (
            {"signs": [{"measure": "exact", "better": "a", "worse": "c", "source": "s"}]},
            "'c'; there are a, b",
        ),
        ({"measures": [{"label": "x", "value": "frechet"}] * 2}, "two measures have the same label"),
        ({"variants": {"a": []}}, "at least 2"),
    ],
)
def test_a_study_that_names_what_it_has_not_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        study(**changes)
