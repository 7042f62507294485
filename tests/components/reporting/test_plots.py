"""Plots stand in a page and alone, take its colours, repeat their bytes; the grid keeps its order."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from components.evaluation.bootstrap import Interval
from components.evaluation.results import Evaluation
from components.reporting.grid import GAP, LINE, PROMPT_WIDTH, GridColumn, draw_grid
from components.reporting.plots import COLOURS, POINTS, LossCurve, plot_losses, plot_quality

SVG = "{http://www.w3.org/2000/svg}"


def falling(count: int) -> LossCurve:
    return LossCurve(
        "train", "teacher", [32.0 * i for i in range(count)], [1 / (1 + i) for i in range(count)]
    )


def evaluation(model: str, steps: int, score: float | None) -> Evaluation:
    following = {} if score is None else {"short": score}
    as_is = {} if score is None else {"short": score / 2}
    interval = {} if score is None else {"prompt_following": Interval(score - 0.05, score + 0.05, score)}
    metrics = {"frechet": 1.0, "judge_score": 0.4}
    return Evaluation(model, steps, 10, metrics, following, as_is, intervals=interval)


def words(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


@pytest.mark.parametrize(
    "svg",
    [
        plot_losses([replace(falling(50), stage="a <b> & c")]),
        plot_quality([evaluation("teacher", 50, 0.8), evaluation("student", 1, 0.7)]),
    ],
    ids=["losses", "quality"],
)
def test_a_plot_is_one_svg_element_without_ids_that_clash_or_styles_that_leak(svg: str):
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") in (
        "Loss of a <b> & c over 1,568 images: from 0.75 to 0.0202",
        "Quality against network evaluations: teacher in 50 steps 0.800, student in 1 step 0.700",
    )
    assert not list(root.iter(f"{SVG}style"))
    assert not [group for group in root.iter(f"{SVG}g") if group.get("id")]
    used = set(re.findall(r"#[0-9a-f]{6}(?![0-9a-z])", re.sub(r"var\([^)]*\)", "", svg)))
    assert not used, f"colours that no theme reaches: {used}"
    assert f"var(--ink, {COLOURS['ink']})" in svg


def test_the_same_curve_is_the_same_bytes():
    assert plot_losses([falling(50)]) == plot_losses([falling(50)])


def test_smoothing_keeps_the_length_a_constant_and_the_middle_of_a_line():
    assert falling(7).smoothed().shape == (7,)
    constant = LossCurve("train", "teacher", list(range(300)), [2.5] * 300)
    assert np.allclose(constant.smoothed(), 2.5)
    line = LossCurve("train", "teacher", list(range(300)), [float(i) for i in range(300)])
    assert np.allclose(line.smoothed()[10:-10], np.arange(300)[10:-10])


def test_the_last_value_written_is_the_mean_at_the_end():
    curve = LossCurve("distill", "student", [float(i) for i in range(200)], [3.0] * 100 + [1.25] * 100)
    assert "distill 1.25" in words(plot_losses([curve]))


def test_long_curves_are_thinned_but_keep_their_ends():
    svg = plot_losses([falling(100 * POINTS)])
    assert len(svg) < 100_000
    assert "1.2M" in words(svg) or "1M" in words(svg)


def test_values_that_are_not_finite_are_left_out_and_a_curve_of_nothing_else_is_refused():
    curve = LossCurve("train", "teacher", [0, 1, 2], [1.0, float("nan"), 1.0])
    assert "train 1" in words(plot_losses([curve]))
    with pytest.raises(ValueError, match="no finite value"):
        plot_losses([LossCurve("train", "teacher", [0], [float("inf")])])


def test_a_curve_of_one_value_is_plotted():
    assert "train 0.5" in words(plot_losses([LossCurve("train", "teacher", [32], [0.5])]))


THREE = [
    evaluation("teacher", 50, 0.8),
    evaluation("undistilled", 1, 0.3),
    evaluation("student", 1, 0.71),
    evaluation("student", 4, 0.79),
]


def test_quality_shows_every_point_at_its_network_evaluations():
    text = words(plot_quality(THREE))
    for shown in (
        "0.800",
        "0.300",
        "0.710",
        "0.790",
        "teacher, 50 steps",
        "undistilled, 1 step",
        "student, 1, 4 steps",
        "100",
        "exact prompt following",
    ):
        assert shown in text


def test_prompts_as_they_are_have_a_plot_of_their_own():
    text = words(plot_quality(THREE, upsampled=False))
    assert "0.400" in text and "0.150" in text and "0.800" not in text


def test_an_interval_is_drawn_where_there_is_one():
    known = plot_quality([evaluation("student", 1, 0.5)])
    unknown = plot_quality([replace(evaluation("student", 1, 0.5), intervals={})])
    assert known.count("<path") > unknown.count("<path")


def test_quality_falls_back_to_the_judge_where_nothing_was_scored():
    text = words(plot_quality([evaluation("teacher", 50, None), evaluation("student", 1, None)]))
    assert "judge score" in text and "0.400" in text


def flat(value: int, count: int, side: int = 8) -> np.ndarray:
    return np.stack([np.full((side, side, 3), value + i, np.uint8) for i in range(count)])


def test_the_grid_puts_each_image_in_its_row_and_column_unblurred():
    columns = [GridColumn("teacher", 50, flat(10, 3)), GridColumn("student", 1, flat(100, 3))]
    sheet = np.asarray(draw_grid(["a", "b", "c"], columns, cell=40))
    for column, base in enumerate((10, 100)):
        for row in range(3):
            x = GAP + PROMPT_WIDTH + column * (40 + GAP)
            y = 2 * LINE + 2 * GAP + row * (40 + GAP)
            cell = sheet[y : y + 40, x : x + 40]
            assert cell.min() == cell.max() == base + row


def test_the_grid_fits_prompts_of_any_length_and_images_of_any_size():
    prompts = ["word " * 80, "x" * 400, ""]
    sheet = draw_grid(prompts, [GridColumn("student", 2, flat(7, 3, side=200))], cell=64)
    left = np.asarray(sheet)[:, : PROMPT_WIDTH + GAP]
    assert (left[:, -GAP:] == 255).all(), "a prompt runs into the images"


def test_a_column_with_an_image_too_few_is_refused():
    with pytest.raises(ValueError, match="student at 1 step: 2 images for 3 prompts"):
        draw_grid(["a", "b", "c"], [GridColumn("student", 1, flat(0, 2))])
