"""The tables of an evaluation: one protocol each, never a mean without its interval, a distance its floor."""

from components.evaluation.bootstrap import Interval
from components.evaluation.results import Evaluation, Metrics
from components.reporting.quality_tables import (
    QualityTable,
    cost_table,
    coverage_table,
    distances_table,
    following_tables,
    geneval_tables,
    joined,
    summary_lines,
)

PROTOCOL = {"prompts_digest": "p" * 64, "reference_digest": "r" * 64}


def evaluation(model: str, steps: int, default: float, as_is: float, coverage: float = 0.3) -> Evaluation:
    return Evaluation(
        model,
        steps,
        100,
        {"coverage": coverage, "frechet": 0.5},
        {"short": default, "long": default},
        {"short": as_is, "long": as_is},
        {"colors": 0.9},
        {"colors": 0.8},
        {"prompt_following": Interval(default - 0.01, default + 0.01, default)},
        0.25,
        0.5,
    )


METRICS = Metrics(
    (
        evaluation("teacher", 25, 0.8, 0.5),
        evaluation("undistilled", 1, 0.2, 0.1),
        evaluation("student", 1, 0.6, 0.4),
    ),
    {"short": 1.0, "long": 0.98},
    PROTOCOL,
    {"coverage": 0.25, "frechet": 0.125},
)


def texts(table: QualityTable | None) -> dict[str, list[str]]:
    assert table is not None
    return {row.label: [cell.text for cell in row.cells] for row in table.rows}


def test_following_by_default_and_as_is_stand_in_two_tables_with_the_same_columns():
    default, as_is = following_tables(METRICS)
    assert default.columns == ("Mean", "95%", "Of teacher", "short", "long")
    assert texts(default) == {
        "teacher, 25 steps": ["0.800", "0.790–0.810", "100%", "0.80", "0.80"],
        "undistilled, 1 step": ["0.200", "0.190–0.210", "25%", "0.20", "0.20"],
        "student, 1 step": ["0.600", "0.590–0.610", "75%", "0.60", "0.60"],
        "scorer, on true renders": ["0.990", "", "", "1.00", "0.98"],
    }
    assert texts(as_is)["student, 1 step"] == ["0.400", "80%", "0.40", "0.40"]
    assert [row.model for row in default.rows] == ["teacher", "undistilled", "student", ""]


def test_each_table_names_the_protocol_that_its_numbers_depend_on():
    by_prompts = [*following_tables(METRICS), *geneval_tables(METRICS), coverage_table(METRICS)]
    assert {table.protocol for table in by_prompts} == {"p" * 12}
    assert distances_table(METRICS).protocol == "r" * 12
    assert cost_table(METRICS).protocol == ""  # seconds depend on the machine


def test_a_distance_stands_beside_its_floor():
    coverage = coverage_table(METRICS)
    assert coverage.columns == ("Coverage", "Above floor")
    assert texts(coverage)["student, 1 step"] == ["0.300", "0.050"]
    assert texts(coverage)["floor"] == ["0.250", ""]
    assert texts(distances_table(METRICS)) == {
        **{label: ["0.5"] for label in ("teacher, 25 steps", "undistilled, 1 step", "student, 1 step")},
        "floor": ["0.125"],
    }


def test_the_cost_of_an_image_counts_guided_steps_twice():
    assert texts(cost_table(METRICS))["teacher, 25 steps"] == ["50", "250.0 ms", "500.0 ms"]
    assert texts(cost_table(METRICS))["undistilled, 1 step"][0] == "1"


def test_what_was_not_measured_has_no_table_or_a_dash():
    bare = Metrics(
        (Evaluation("teacher", 25, 10, {}), Evaluation("student", 1, 10, {"judge_score": 0.5})), {}
    )
    assert following_tables(bare) == () and geneval_tables(bare) == () and coverage_table(bare) is None
    assert texts(distances_table(bare)) == {"teacher, 25 steps": ["–"], "student, 1 step": ["0.500"]}
    assert summary_lines(bare) == ["student, 1 step: not scored"]


def test_an_older_version_is_not_called_exact():
    older = Metrics((Evaluation("student", 1, 10, {}, {"colors": 0.98}),), {})
    (table,) = following_tables(older)
    assert table.title == "Prompt following, by the default command" and "looser rules" in table.note
    assert summary_lines(older) == ["student, 1 step: 0.980 by the default command"]


def test_joined_tables_keep_the_rows_of_each_model_together():
    side = joined((coverage_table(METRICS), None, cost_table(METRICS)))
    assert side.columns == ("Coverage", "Above floor", "Evaluations", "Time", "Upsampled")
    assert texts(side)["student, 1 step"] == ["0.300", "0.050", "1", "250.0 ms", "500.0 ms"]
    assert list(texts(side))[-1] == "floor" and texts(side)["floor"] == ["0.250", "", "", "", ""]
    assert joined((None,)) is None


def test_the_summary_says_both_ways_and_the_coverage():
    assert summary_lines(METRICS) == [
        "student, 1 step: exact 0.600 (0.590–0.610) by the default command, 0.400 as is,"
        " coverage +0.050 above its floor"
    ]
