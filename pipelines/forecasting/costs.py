"""What a stage will take, from what it took before: seconds, memory and bytes as functions of its size.

Pure: sizes and measurements in, estimates out (run.py takes them from receipts and configs). Nothing
is guessed: without a comparable run an estimate is unknown, and one that can only be bounded is a bound.

    runs of two sizes or more    value = fixed + rate · size, by least squares, neither below 0; of the memory
                                 a bound, by the run of the nearest size
    runs of one size, this one   the newest of them
    runs of one size, another    fixed seconds stay, where they are known, and the rest is scaled;
                                 else all is: an upper bound for a larger size, a lower one for a smaller
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

APART = 1.5  # sizes must differ by this factor for a line through them to say anything beyond them
SAME = 0.01  # sizes that differ by no more than this share are one size


@dataclass(frozen=True)
class Measured:
    """An earlier run. size: in the stage's unit (records, images); the newest first where there are several.

    fixed_seconds: of its seconds those that do not grow with its size, where they are known.
    """

    size: float
    seconds: float
    peak_mb: float
    bytes: float
    fixed_seconds: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A forecast value, or a bound of it; None: unknown."""

    value: float | None = None
    bound: Literal["", "≤", "≥"] = ""


@dataclass(frozen=True)
class Forecast:
    """What a run of a size will take. basis: how that was derived, in a few words."""

    seconds: Estimate
    peak_mb: Estimate
    bytes: Estimate
    basis: str


UNKNOWN = Estimate()


def unknown(why: str) -> Forecast:
    """Nothing is known, and why."""
    return Forecast(UNKNOWN, UNKNOWN, UNKNOWN, why)


def forecast(runs: Sequence[Measured], size: float, unit: str) -> Forecast:
    """The forecast for a run of this size, from comparable ones, the newest first."""
    if not runs:
        return unknown("no comparable run")
    nearest = min(runs, key=lambda run: abs(run.size - size))  # of equally near ones the newest
    smallest, largest = min(run.size for run in runs), max(run.size for run in runs)
    if largest >= APART * max(smallest, 1e-9):
        line = _line_through(runs, size)
        basis = f"line through {len(runs)} runs, {smallest:,.0f} to {largest:,.0f} {unit}"
        return Forecast(Estimate(line(_seconds)), _peak_of(nearest, size), Estimate(line(_bytes)), basis)
    if abs(nearest.size - size) <= SAME * size:
        return Forecast(
            Estimate(nearest.seconds),
            Estimate(nearest.peak_mb),
            Estimate(nearest.bytes),
            "measured, this size",
        )
    return _scaled(nearest, size, unit)


def kept_share(counts: Sequence[tuple[int, int]]) -> float | None:
    """The share of records that goes on, from (in, kept) of comparable runs; None where there are none."""
    total = sum(records for records, _ in counts)
    return sum(kept for _, kept in counts) / total if total else None


def _seconds(run: Measured) -> float:
    return run.seconds


def _bytes(run: Measured) -> float:
    return run.bytes


def _line_through(runs: Sequence[Measured], size: float) -> Callable[[Callable[[Measured], float]], float]:
    """For a measured quantity, its value at `size` on the line through the runs."""

    def value(quantity: Callable[[Measured], float]) -> float:
        mean_size = sum(run.size for run in runs) / len(runs)
        mean = sum(map(quantity, runs)) / len(runs)
        spread = sum((run.size - mean_size) ** 2 for run in runs)
        rate = sum((run.size - mean_size) * (quantity(run) - mean) for run in runs) / spread
        fixed = mean - rate * mean_size
        if rate < 0:
            return mean
        if fixed < 0:  # through the origin
            return size * sum(run.size * quantity(run) for run in runs) / sum(run.size**2 for run in runs)
        return fixed + rate * size

    return value


def _peak_of(run: Measured, size: float) -> Estimate:
    """The memory of a run of another size: it grows with the size up to that of a fragment, and is then
    nearly flat, so that a line through small runs would be far too high for a large one.
    """
    if abs(run.size - size) <= SAME * size:
        return Estimate(run.peak_mb)
    return Estimate(run.peak_mb, "≥" if size > run.size else "≤")


def _scaled(run: Measured, size: float, unit: str) -> Forecast:
    """From runs of one other size alone."""
    factor = size / run.size
    bound: Literal["≤", "≥"] = "≤" if factor > 1 else "≥"
    if run.fixed_seconds is not None:
        seconds = Estimate(run.fixed_seconds + factor * (run.seconds - run.fixed_seconds))
    else:
        seconds = Estimate(factor * run.seconds, bound)
    return Forecast(
        seconds,
        _peak_of(run, size),
        Estimate(factor * run.bytes),
        f"scaled from {run.size:,.0f} {unit}",
    )
