"""What `straightshot evaluate` says of the numbers that were recorded before."""

from dataclasses import replace
from pathlib import Path

from components.evaluation.results import Metrics
from dags.cli.evaluation import comparison_lines
from pipelines.model_evaluation import Difference, ModelEvaluation

SAME = ModelEvaluation("champion", Path("model"), Metrics((), {}), Path("metrics.json"), True, ())


def test_the_same_numbers_and_what_cannot_be_compared_are_a_line_each():
    assert comparison_lines(SAME) == ["the same numbers as recorded in metrics.json"]
    (line,) = comparison_lines(replace(SAME, recorded=None, same_protocol=False))
    assert line == "no evaluation of this model is recorded under this home"
    (line,) = comparison_lines(replace(SAME, same_protocol=False))
    assert "measured by another protocol" in line and "not compared" in line


def test_the_first_differences_are_listed_and_the_rest_counted():
    many = tuple(Difference(f"student.1.{i}", 0.5, 0.25) for i in range(14))
    lines = comparison_lines(replace(SAME, differences=many))
    assert lines[0] == "14 numbers differ from those in metrics.json:"
    assert lines[1] == "  student.1.0: recorded 0.5, measured 0.25"
    assert len(lines) == 14 and lines[-1] == "  and 2 more; --json lists them"
