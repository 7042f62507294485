"""A forecast is what earlier runs say, a bound where they say no more, and never a guess."""

import shutil

import pytest

from dags.cli.forecast import forecast_cells, forecast_lines
from pipelines.config import load_config
from pipelines.execution.progress import Progress
from pipelines.forecasting.costs import Estimate, Forecast, Measured, forecast, kept_share, unknown
from pipelines.forecasting.run import StageForecast, forecast_run
from pipelines.pipeline import Pipeline
from pipelines.retention.catalog import read_catalog
from pipelines.store.receipts import RECEIPT, Counts, Receipt, parse_receipt, seal
from tests.pipelines.one_by_one import OneByOne
from tests.pipelines.retention.small_runs import NAMES, run

DATA = ("filter", "recaption", "shard")
MB = 1e6


def costs(size: float) -> Measured:
    """A stage that takes 30 s to start and 0.05 s, 0.01 MB of memory and 2 kB a record."""
    return Measured(size, 30 + 0.05 * size, 900 + 0.01 * size, 2000 * size)


def test_two_sizes_tell_the_fixed_cost_from_the_rate():
    made = forecast([costs(2000), costs(500)], 20_000, "records")
    assert made.seconds.value == pytest.approx(costs(20_000).seconds)
    assert made.peak_mb == Estimate(costs(2000).peak_mb, "≥")
    assert made.bytes.value == pytest.approx(costs(20_000).bytes)
    assert {made.seconds.bound, made.bytes.bound} == {""}
    assert made.basis == "line through 2 runs, 500 to 2,000 records"


def test_one_size_bounds_what_has_a_fixed_cost_and_the_truth_lies_within():
    up, down = forecast([costs(2000)], 20_000, "records"), forecast([costs(2000)], 200, "records")
    assert up.seconds == Estimate(1300, "≤") and costs(20_000).seconds <= 1300
    assert up.peak_mb == Estimate(920, "≥") and costs(20_000).peak_mb >= 920
    assert up.bytes == Estimate(40 * MB)
    assert down.seconds == Estimate(13, "≥") and down.peak_mb == Estimate(920, "≤")
    assert up.basis == "scaled from 2,000 records"


def test_sizes_that_lie_close_together_make_no_line():
    assert forecast([costs(2000), costs(1500)], 20_000, "records").seconds == Estimate(1300, "≤")


def test_the_same_size_is_as_it_was_measured_last():
    newest, older = Measured(500, 12, 100, 7), Measured(500, 99, 100, 7)
    assert forecast([newest, older], 500, "records").seconds == Estimate(12)
    assert forecast([newest, older], 500, "records").basis == "measured, this size"


def test_a_known_rate_makes_one_run_enough():
    """Of 100 s, 20 s were before the training and 80 s for 800 images."""
    made = forecast([Measured(800, 100, 900, 5, fixed_seconds=20)], 8000, "images")
    assert made.seconds == Estimate(820)


def test_noise_makes_neither_cost_negative():
    falling = forecast([Measured(100, 50, 1, 1), Measured(1000, 40, 1, 1)], 10_000, "records")
    assert falling.seconds.value == 45
    steep = forecast([Measured(100, 1, 1, 1), Measured(1000, 100, 1, 1)], 10, "records")
    assert 0 < (steep.seconds.value or 0) <= 1


def test_nothing_comparable_is_unknown():
    assert forecast([], 100, "records") == unknown("no comparable run")
    assert forecast_cells(unknown("no comparable run")) == (*["unknown"] * 3, "no comparable run")
    assert kept_share([]) is None and kept_share([(10, 5), (30, 25)]) == 0.75


def test_the_total_says_what_it_leaves_out_and_a_disk_that_is_too_small_is_said_in_one_line():
    known = Forecast(Estimate(60), Estimate(900), Estimate(900 * MB), "")
    bounded = Forecast(Estimate(60, "≤"), Estimate(900), Estimate(100 * MB), "")
    lines = forecast_lines([known, bounded, unknown("")], free=round(2000 * MB))
    assert lines[0] == "In all: ≤ 2.0 min and 1 unknown, 1,000.0 MB and 1 unknown on disk; 2,000 MB are free."
    assert not any("Warning" in line for line in lines)
    lines = forecast_lines([known, bounded], free=round(1200 * MB))
    assert lines[-1].startswith(
        "Warning: 1,537 MB must be free (537 MB of them to work in), and 1,200 MB are"
    )


def forecasts(home, *overrides: str, corpus: str) -> dict[str, Forecast]:
    config = load_config("micro", ["toy.labelled=5", *overrides], corpus=corpus)
    plan = Pipeline(config, home).plan()
    return {one.stage: one.forecast for one in forecast_run(plan, NAMES, config, home)}


def test_runs_of_another_network_or_filter_say_nothing(tmp_path):
    assert {one.basis for one in forecasts(tmp_path, corpus="toy:20").values()} == {"no comparable run"}
    run(tmp_path)
    again = forecasts(tmp_path, "train.images=9999", corpus="toy:20")
    assert again["train"].basis == "scaled from 1,024 images"
    assert again["annotators"].basis == "measured, this size"
    other = forecasts(tmp_path, "train.network.depth=2", "filter.image.min_side=4", corpus="toy:20")
    assert {name for name, one in other.items() if one.basis == "no comparable run"} == {
        *("train", "distill", "evaluate", "filter")
    }


def test_a_data_stage_with_a_known_startup_is_forecast_without_a_bound(tmp_path):
    """Of its 30 s, 20 went into starting Ray and loading models: ten times the records take 120 s."""
    path = run(tmp_path)["filter"] / RECEIPT
    receipt = parse_receipt(path.read_bytes(), Receipt)
    counts = Counts.model_validate({"in": 20, "kept": 20})
    slow = receipt.model_copy(update={"seconds": 30.0, "startup_seconds": 20.0, "counts": counts})
    path.write_bytes(seal(slow)[1])
    assert forecasts(tmp_path, corpus="toy:200")["filter"].seconds == Estimate(120)


def test_disk_is_forecast_within_a_fifth_from_a_smaller_run(micro_home, tmp_path):
    """A real run of 100 records forecasts the one of 300 that micro makes."""
    config = load_config("micro", corpus="toy:100")
    shutil.copytree(micro_home / "annotators", tmp_path / "annotators")
    pipeline = Pipeline(config, tmp_path, OneByOne(), Progress(quiet=True))
    pipeline.prepare()
    for name in DATA:
        pipeline.run_one(name)

    larger = load_config("micro")
    plan = Pipeline(larger, tmp_path).plan()
    found: list[StageForecast] = forecast_run(plan, DATA, larger, tmp_path)
    assert [one.stage for one in found] == ["corpus", *DATA]
    catalog = read_catalog(micro_home)
    for one in found:
        (made,) = catalog.of(one.stage)
        measured = sum(entry.bytes for entry in made.receipt.files)
        assert one.forecast.bytes.value == pytest.approx(measured, rel=0.2), one.stage
        assert one.forecast.seconds.bound == "≤" and one.forecast.peak_mb.bound == "≥"
