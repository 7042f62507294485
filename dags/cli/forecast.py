"""A run's forecast as `run --dry-run` prints it: a table, the total, how to read it, a warning."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dags.cli.console import console, plain_table
from pipelines.forecasting.costs import Estimate, Forecast
from pipelines.sources import TOY_WEB
from pipelines.store.home import FREE_BYTES

if TYPE_CHECKING:
    from pipelines.forecasting.run import StageForecast

UNKNOWN = "unknown"
LEGEND = (
    "Forecast from earlier runs under this home, for as many workers and as busy a machine as then; disk is"
    " of the outputs. ≤ and ≥ are bounds: of memory at another size, and of seconds where runs of one size"
    " alone hide the fixed cost."
)


def print_forecast(forecasts: Sequence["StageForecast"], free: int) -> None:
    """What each stage that would run will take. free: bytes on HOME's disk."""
    if not forecasts:
        return
    table = plain_table("forecast", ">seconds", ">memory", ">disk", "from")
    for one in forecasts:
        table.add_row("toy web" if one.stage == TOY_WEB.name else one.stage, *forecast_cells(one.forecast))
    terminal = console()
    terminal.print()
    terminal.print(table)
    for line in forecast_lines([one.forecast for one in forecasts], free):
        terminal.print(line, markup=False, highlight=False, soft_wrap=True)


def forecast_cells(forecast: Forecast) -> tuple[str, str, str, str]:
    """Seconds, memory, disk, and how they were derived."""
    return (
        _shown(forecast.seconds, 1.0, "{:,.1f}"),
        _shown(forecast.peak_mb, 1.0, "{:,.0f} MB"),
        _shown(forecast.bytes, 1e6, "{:,.1f} MB"),
        forecast.basis,
    )


def forecast_lines(forecasts: Sequence[Forecast], free: int) -> list[str]:
    """The total, how to read it, and a warning where the disk is too small. free: bytes on HOME's disk."""
    seconds = _total([one.seconds for one in forecasts], 60.0, "{:,.1f} min")
    disk = _total([one.bytes for one in forecasts], 1e6, "{:,.1f} MB")
    lines = [f"In all: {seconds}, {disk} on disk; {free / 1e6:,.0f} MB are free.", LEGEND]
    needed = sum(one.bytes.value or 0.0 for one in forecasts) + FREE_BYTES
    if needed > free:
        lines.append(
            f"Warning: {needed / 1e6:,.0f} MB must be free ({FREE_BYTES / 1e6:,.0f} MB of them to work in),"
            f" and {free / 1e6:,.0f} MB are; free some (`straightshot gc --dry-run` shows what could go), or"
            " give another --home"
        )
    return lines


def _shown(estimate: Estimate, unit: float, form: str) -> str:
    if estimate.value is None:
        return UNKNOWN
    return f"{estimate.bound} {form.format(estimate.value / unit)}".strip()


def _total(estimates: Sequence[Estimate], unit: float, form: str) -> str:
    """The sum; a bound where a part is one, and without what is unknown."""
    known = [estimate for estimate in estimates if estimate.value is not None]
    if not known:
        return UNKNOWN
    bounds = {estimate.bound for estimate in known} - {""}
    bound = bounds.pop() if len(bounds) == 1 else "about" if bounds else ""
    text = _shown(Estimate(sum(estimate.value or 0.0 for estimate in known)), unit, form)
    missing = len(estimates) - len(known)
    rest = f" and {missing} unknown" if missing else ""
    return f"{bound} {text}{rest}".strip()
