"""metrics.json as a fixed interface, timings beside it, and what other versions of both look like."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.evaluation.bootstrap import Interval
from components.evaluation.results import (
    PROMPTS_DIGEST,
    REFERENCE_DIGEST,
    Evaluation,
    Metrics,
    comparable,
    read_metrics,
)

PROTOCOL = {"prompts_digest": "aa", "reference_digest": "bb"}
NUMBERS = {"frechet": 0.5, "judge_score": 0.25, "coverage": 0.375}


def some_metrics() -> Metrics:
    scored = {
        "metrics": NUMBERS,
        "images": 60,
        "prompt_following": {"short": 1.0, "long": 0.5},
        "prompt_following_as_is": {"short": 0.25, "long": 0.75},
        "geneval": {"colors": 1.0, "counting": 0.5},
        "geneval_as_is": {"colors": 0.5, "counting": 0.5},
        "intervals": {
            "prompt_following": Interval(0.7, 0.8, 0.75),
            "prompt_following_as_is": Interval(0.4, 0.6, 0.5),
        },
        "seconds_per_image": 0.125,
        "seconds_per_image_upsampled": 0.25,
    }
    return Metrics(
        evaluations=(
            Evaluation("teacher", 25, **scored),
            Evaluation("undistilled", 1, **scored),
            Evaluation("student", 1, **scored),
            Evaluation("student", 4, images=7, metrics={"frechet": 0.5}),
        ),
        scorer={"short": 1.0, "long": 0.99},
        protocol=PROTOCOL,
        floors={"frechet": 0.125, "coverage": 0.25},
    )


def write(folder: Path, metrics: Metrics) -> Path:
    (folder / "timings.json").write_text(metrics.timings_json())
    path = folder / "metrics.json"
    path.write_text(metrics.to_json())
    return path


def edited(folder: Path, **changes: Any) -> Path:
    """metrics.json with fields of the student at one step changed; those that are None are taken out."""
    path = write(folder, some_metrics())
    document = json.loads(path.read_text())
    entry = {**document["student"]["1"], **changes}
    document["student"]["1"] = {name: value for name, value in entry.items() if value is not None}
    path.write_text(json.dumps(document))
    return path


def test_metrics_json_has_the_fixed_form():
    document = json.loads(some_metrics().to_json())
    assert list(document) == ["protocol", "teacher", "undistilled", "student", "scorer", "floors"]
    assert document["protocol"] == PROTOCOL
    assert [list(document[model]) for model in ("teacher", "undistilled", "student")] == [
        ["25"],
        ["1"],
        ["1", "4"],
    ]
    assert document["teacher"]["25"] == {
        "prompt_following": {"short": 1.0, "long": 0.5, "mean": 0.75},
        "prompt_following_as_is": {"short": 0.25, "long": 0.75, "mean": 0.5},
        "geneval": {"colors": 1.0, "counting": 0.5, "mean": 0.75},
        "geneval_as_is": {"colors": 0.5, "counting": 0.5, "mean": 0.5},
        "intervals": {"prompt_following": [0.7, 0.8], "prompt_following_as_is": [0.4, 0.6]},
        **NUMBERS,
        "images": 60,
    }
    assert document["student"]["4"]["prompt_following"] == {}
    assert document["scorer"] == {"short": 1.0, "long": 0.99}
    assert document["floors"] == {"frechet": 0.125, "coverage": 0.25}


def test_the_same_evaluation_at_another_speed_has_the_same_metrics_json():
    slower = tuple(replace(e, seconds_per_image=9.0) for e in some_metrics().evaluations)
    slow = replace(some_metrics(), evaluations=slower)
    assert slow.to_json() == some_metrics().to_json()
    assert json.loads(slow.timings_json())["student"] == {
        "1": {"seconds_per_image": 9.0, "seconds_per_image_upsampled": 0.25},
        "4": {"seconds_per_image": 9.0},
    }


def test_both_files_come_back_as_they_were_written(tmp_path: Path):
    path = write(tmp_path, some_metrics())
    read = read_metrics(path)
    assert read == some_metrics()
    assert read.to_json() == path.read_text()
    student = read.of("student", 1)
    assert (student.mean, student.mean_as_is) == (0.75, 0.5)
    assert student.intervals["prompt_following_as_is"] == Interval(0.4, 0.6, 0.5)
    assert read.of("student", 4).mean is None
    assert read.of("student", 3) is None
    calls = [read.of(model, steps).network_evaluations for model, steps in RUNS]
    assert calls == [50, 1, 1]


RUNS = (("teacher", 25), ("undistilled", 1), ("student", 1))


def test_a_metric_is_set_against_its_floor_where_it_has_one():
    metrics = some_metrics()
    student, quick = metrics.of("student", 1), metrics.of("student", 4)
    assert metrics.above_floor(student, "coverage") == 0.125
    assert metrics.above_floor(student, "judge_score") is None
    assert metrics.above_floor(quick, "coverage") is None


def test_numbers_compare_under_one_protocol_only():
    other_judge = {**PROTOCOL, "reference_digest": "cc"}
    assert comparable(PROTOCOL, dict(PROTOCOL))
    assert comparable(PROTOCOL, other_judge, PROMPTS_DIGEST)
    assert not comparable(PROTOCOL, other_judge, REFERENCE_DIGEST)
    assert not comparable(PROTOCOL, {**PROTOCOL, "prompts_digest": "cc"}, PROMPTS_DIGEST)
    assert not comparable({}, {}), "another version's numbers, without a protocol"


@pytest.mark.parametrize("text", [None, "", "[]", '{"student": {"1": {}}}', '{"student": {"one": {}}}'])
def test_metrics_are_read_without_timings_that_are_missing_or_damaged(tmp_path: Path, text: str | None):
    path = write(tmp_path, some_metrics())
    timings = tmp_path / "timings.json"
    timings.unlink() if text is None else timings.write_text(text)
    read = read_metrics(path)
    assert {e.seconds_per_image for e in read.evaluations} == {None}
    assert read.to_json() == some_metrics().to_json()


def test_an_older_file_with_the_seconds_inside_and_no_protocol_is_read(tmp_path: Path):
    entry = {"prompt_following": {}, "frechet": 1, "judge_score": 0.5, "seconds_per_image": 2, "images": 3}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"teacher": {}, "student": {"1": entry}}))
    expected = Evaluation("student", 1, 3, {"frechet": 1.0, "judge_score": 0.5}, seconds_per_image=2.0)
    assert read_metrics(path) == Metrics((expected,), scorer={}, protocol={})


def test_a_metric_of_a_newer_version_is_kept_and_one_that_is_missing_was_not_measured(tmp_path: Path):
    read = read_metrics(edited(tmp_path, recall=0.75, frechet=None, remark="new"))
    student = read.of("student", 1)
    assert student.metrics == {"judge_score": 0.25, "coverage": 0.375, "recall": 0.75}
    assert student.prompt_following == {"short": 1.0, "long": 0.5}
    assert read.of("teacher", 25) == some_metrics().of("teacher", 25)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"teacher": {}}',
        '{"teacher": {"x": {}}, "student": {}, "scorer": {}}',
        '{"teacher": {"1": {"prompt_following": {"colors": "high"}}}, "student": {}}',
        '{"teacher": {"1": {"intervals": {"prompt_following": 1}}}, "student": {}}',
    ],
)
def test_a_file_that_is_no_metrics_is_named_in_one_line(tmp_path: Path, text: str):
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.json: not a metrics\.json") as raised:
        read_metrics(path)
    assert "\n" not in str(raised.value)


def test_a_metric_that_is_not_a_number_is_never_written():
    broken = Evaluation("teacher", 50, 1, {"frechet": float("nan")})
    with pytest.raises(ValueError, match="JSON compliant"):
        Metrics((broken,), {}).to_json()
