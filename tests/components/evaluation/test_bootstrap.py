"""Bootstrap intervals against the closed forms of proportions, and the pairing against its purpose."""

import numpy as np
import pytest

from components.evaluation.bootstrap import bootstrap, paired_bootstrap

FORMS = ("short", "partial", "long")


def coins(share: float, count: int, seed: int) -> list[bool]:
    return (np.random.default_rng(seed).random(count) < share).tolist()


def test_the_interval_of_one_share_is_that_of_the_normal_approximation():
    verdicts = coins(0.7, 400, 0)
    share = float(np.mean(verdicts))
    interval = bootstrap(verdicts, ["short"] * 400, seed=1)
    half = 1.96 * np.sqrt(share * (1 - share) / 400)
    assert interval.mean == pytest.approx(share)
    assert interval.low == pytest.approx(share - half, abs=0.008)
    assert interval.high == pytest.approx(share + half, abs=0.008)


def test_every_form_has_the_same_weight_whatever_its_number_of_prompts():
    verdicts = [True] * 90 + [False] * 10
    interval = bootstrap(verdicts, ["short"] * 90 + ["long"] * 10, seed=0)
    assert (interval.low, interval.mean, interval.high) == (0.5, 0.5, 0.5)  # resampled within the forms


def test_intervals_cover_the_truth_as_often_as_they_say():
    strata = [form for form in FORMS for _ in range(60)]
    covered = 0
    for trial in range(200):
        verdicts = [bool(v) for i, _ in enumerate(FORMS) for v in coins(0.5 + 0.2 * i, 60, 3 * trial + i)]
        interval = bootstrap(verdicts, strata, seed=trial)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.90 <= covered / 200 <= 0.985


def test_the_same_verdicts_and_seed_give_the_same_interval():
    verdicts, strata = coins(0.4, 90, 2), [form for form in FORMS for _ in range(30)]
    assert bootstrap(verdicts, strata, seed=3) == bootstrap(verdicts, strata, seed=3)
    assert bootstrap(verdicts, strata, seed=3) != bootstrap(verdicts, strata, seed=4)


def test_a_small_drop_is_certain_where_it_is_paired_and_not_where_it_is_unpaired():
    """Of 300 prompts, half hard; the candidate loses 12 that the champion gets right."""
    champion = coins(0.5, 300, 5)
    lost = set(np.flatnonzero(champion)[:12].tolist())
    candidate = [verdict and row not in lost for row, verdict in enumerate(champion)]
    strata = ["short"] * 300
    paired = paired_bootstrap(candidate, champion, strata, seed=0)
    assert paired.mean == pytest.approx(-12 / 300)
    assert paired.high < 0
    assert bootstrap(candidate, strata, seed=0).high > bootstrap(champion, strata, seed=0).low


def test_a_model_does_not_differ_from_itself_and_sides_can_be_swapped():
    a, b = coins(0.6, 200, 6), coins(0.5, 200, 7)
    strata = ["short"] * 100 + ["long"] * 100
    itself = paired_bootstrap(a, a, strata, seed=0)
    assert (itself.low, itself.high, itself.mean) == (0, 0, 0)
    forth, back = paired_bootstrap(a, b, strata, seed=0), paired_bootstrap(b, a, strata, seed=0)
    assert (forth.low, forth.high, forth.mean) == pytest.approx((-back.high, -back.low, -back.mean))


@pytest.mark.parametrize(
    ("candidate", "champion", "strata", "message"),
    [
        ([True], [True, False], ["short"], "cannot be paired"),
        ([True, False], [True, False], ["short"], "for each"),
        ([], [], [], "for each"),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(candidate, champion, strata, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(candidate, champion, strata, seed=0)
