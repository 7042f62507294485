"""A model measured again beside what was recorded of it: every number that differs is named, and no other."""

from dataclasses import replace

from components.evaluation.bootstrap import Interval
from components.evaluation.results import Evaluation, Metrics
from pipelines.model_evaluation import Difference, differences

STUDENT = Evaluation(
    model="student",
    steps=1,
    images=60,
    metrics={"frechet": 0.25, "coverage": 0.125},
    prompt_following={"short": 0.5, "long": 1.0},
    intervals={"prompt_following": Interval(0.625, 0.875, 0.75)},
    seconds_per_image=0.01,
)
RECORDED = Metrics(
    (replace(STUDENT, model="teacher", steps=4), STUDENT, replace(STUDENT, steps=2)),
    scorer={"short": 1.0},
    floors={"frechet": 0.02},
)


def of_student(student: Evaluation, **changes: object) -> Metrics:
    """A measurement of the student alone."""
    return replace(RECORDED, evaluations=(student, replace(STUDENT, steps=2)), **changes)


def test_the_same_numbers_differ_nowhere_whatever_time_they_took():
    assert differences(RECORDED, of_student(replace(STUDENT, seconds_per_image=9.0))) == ()


def test_every_number_that_differs_is_named_with_both_values():
    changed = replace(
        STUDENT,
        metrics={"frechet": 0.25 + 2**-50, "kernel": 0.5},
        prompt_following={"short": 0.25, "long": 1.0},
        intervals={"prompt_following": Interval(0.5, 0.875, 0.625)},
    )
    assert set(differences(RECORDED, of_student(changed, floors={"frechet": 0.03}))) == {
        Difference("student.1.frechet", 0.25, 0.25 + 2**-50),
        Difference("student.1.coverage", 0.125, None),
        Difference("student.1.kernel", None, 0.5),
        Difference("student.1.prompt_following.short", 0.5, 0.25),
        Difference("student.1.prompt_following.mean", 0.75, 0.625),
        Difference("student.1.intervals.prompt_following.low", 0.625, 0.5),
        Difference("floors.frechet", 0.02, 0.03),
    }


def test_models_and_steps_that_only_one_has_are_not_compared():
    three = of_student(replace(STUDENT, steps=3, metrics={}))
    assert differences(RECORDED, three) == ()
