"""What the command prints: the tables of a plan, a status, a finished run and the registered models."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipelines.pipeline import Planned
from pipelines.store.home import home_path

if TYPE_CHECKING:
    from pipelines.registry.model_registry import ModelVersion

STYLES = {"fresh": "green", "ran": "bold green", "stale": "yellow", "missing": "yellow", "running": "cyan"}
LOG_COLUMNS = 120  # the width of what goes to a file or a pipe
GENERATE = 'straightshot generate "a red circle to the left of a blue square" -n 4 -o out/'


def print_status(plan: Sequence[Planned]) -> None:
    """Every stage: state, why, counts, seconds."""
    table = _table(
        "stage",
        "snapshot",
        "state",
        ">in",
        ">kept",
        ">rejected",
        ">errored",
        ">seconds",
        ">memory",
        "why",
    )
    for planned in plan:
        state = _state(planned.state.value)
        table.add_row(planned.stage.name, planned.snapshot, state, *_numbers(planned), planned.why)
    _console().print(table)


def print_plan(plan: Sequence[Planned], todo: Collection[str], forced: Collection[str]) -> None:
    """What a run would do."""
    table = _table("stage", "state", "would", "why")
    for planned in plan:
        name = planned.stage.name
        would = "run" if name in todo else "keep" if planned.fresh else "leave"
        if name in todo and planned.fingerprint is None and planned.receipt is not None:
            would = "run if its inputs change"
        table.add_row(name, _state(planned.state.value), would, "forced" if name in forced else planned.why)
    _console().print(table)


def print_nothing_to_do(plan: Sequence[Planned], home: Path) -> None:
    """A run that found everything fresh."""
    _console().print("[green]Nothing to do:[/] every selected stage is fresh.\n")
    _print_stages(plan, frozenset())
    _print_next(plan, home)


def print_summary(plan: Sequence[Planned], ran: Collection[str], home: Path, seconds: float) -> None:
    """A run that did something: the stages, the models' metrics, where to look, what to try."""
    console = _console()
    console.print()
    _print_stages(plan, ran)
    console.print(f"{len(ran)} of {len(plan)} stages ran, {_duration(seconds)} in all\n")
    _print_metrics(plan)
    _print_next(plan, home)


def print_models(versions: Sequence["ModelVersion"]) -> None:
    """Every registered version, the newest first."""
    if not versions:
        _console().print("No model is registered yet; `straightshot run` makes one.")
        return
    metrics = ("prompt_following", "share_of_teacher", "frechet", "judge_score")
    table = _table("version", "aliases", "registered", *(f">{name.replace('_', ' ')}" for name in metrics))
    for version in versions:
        numbers = version.quality.numbers if version.quality else {}
        cells = (f"{numbers[name]:.3f}" if name in numbers else "–" for name in metrics)
        table.add_row(version.version, ", ".join(version.aliases), _moment(version.created_at), *cells)
    _console().print(table)
    for version in versions:
        for note in version.notes:
            _print_plain(note)


def print_history(moves: Sequence[Mapping[str, Any]]) -> None:
    """Every promotion, refusal and rollback, the oldest first."""
    table = _table("at", "by", "what", "model", "from", "to", "why")
    for move in moves:
        versions = (move["from"] or "–", move["to"])
        checks = "; ".join(move["checks"].values())
        table.add_row(_moment(move["at"]), move["by"], move["action"], move["model"], *versions, checks)
    _console().print(table)


def _moment(text: str) -> str:
    """2026-11-20T10:20:30+00:00 as 2026-11-20 10:20 UTC."""
    return f"{text[:16].replace('T', ' ')} UTC"


def _print_stages(plan: Sequence[Planned], ran: Collection[str]) -> None:
    table = _table("stage", "state", ">in", ">kept", ">rejected", ">errored", ">seconds", ">memory")
    for planned in plan:
        state = "ran" if planned.stage.name in ran else planned.state.value
        table.add_row(planned.stage.name, _state(state), *_numbers(planned))
    _console().print(table)


def _print_metrics(plan: Sequence[Planned]) -> None:
    """Teacher and student at each number of steps, as evaluate measured them."""
    from components.evaluation.metrics import METRICS
    from components.evaluation.results import read_metrics

    path = _output(plan, "evaluate", "metrics.json")
    if path is None:
        return
    evaluations = read_metrics(path).evaluations
    categories = list(dict.fromkeys(name for entry in evaluations for name in entry.prompt_following))
    table = _table("model", ">steps", *([">mean"] if categories else []), *(f">{c}" for c in categories))
    for name in (*(metric.label for metric in METRICS), "ms/image"):
        table.add_column(name, justify="right")
    for entry in evaluations:
        following = [f"{entry.mean:.3f}" if entry.mean is not None else "–"] if categories else []
        following += [
            f"{entry.prompt_following[name]:.2f}" if name in entry.prompt_following else "–"
            for name in categories
        ]
        seconds = entry.seconds_per_image
        rest = [metric.show(entry.metrics.get(metric.name)) for metric in METRICS]
        rest.append("–" if seconds is None else f"{1000 * seconds:.1f}")
        table.add_row(entry.model, str(entry.steps), *following, *rest)
    console = _console()
    if categories:
        console.print("Prompt following, read from the pixels (1 is best):")
    console.print(table)
    console.print()


def _print_next(plan: Sequence[Planned], home: Path) -> None:
    """Where to look, and what to try."""
    lines = [("report", home / "report.html"), ("samples", _output(plan, "evaluate", "samples.png"))]
    for name, path in lines:
        if path is not None and path.exists():
            _print_plain(f"{name:<8} {_short(path)}")
    if all(planned.fresh for planned in plan):
        at = "" if home == home_path(None) else f" --home {_short(home)}"
        _print_plain(f"\nNext:\n  {GENERATE}{at}\n  straightshot ui{at}\n  straightshot status{at}")


def _output(plan: Sequence[Planned], stage: str, name: str) -> Path | None:
    """A file of a fresh stage's output."""
    for planned in plan:
        if planned.stage.name == stage and planned.fresh and planned.path is not None:
            path = planned.path / name
            return path if path.is_file() else None
    return None


def _short(path: Path) -> str:
    """The path from here if it lies below, else whole."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _print_plain(text: str) -> None:
    """Plain text: paths and commands are neither wrapped nor coloured, so that they can be copied."""
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


def _numbers(planned: Planned) -> tuple[str, ...]:
    """in, kept, rejected, errored, seconds, peak memory of an output; dashes where there is none."""
    receipt = planned.receipt if planned.fresh else None
    if receipt is None:
        return ("–",) * 6
    counts = receipt.counts
    records = (counts.in_, counts.kept, counts.rejected, counts.errored)
    cells = tuple(f"{n:,}" for n in records) if counts.in_ else ("–",) * 4
    return (*cells, f"{receipt.seconds:,.1f}", f"{receipt.peak_rss_mb:,.0f} MB")


def _state(state: str) -> str:
    return f"[{STYLES.get(state, 'red')}]{state}[/]"


def _table(*columns: str) -> Table:
    """A plain table; '>' before a column's name puts it to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            name.lstrip(">"), justify="right" if name.startswith(">") else "left", no_wrap=name != "why"
        )
    return table


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=LOG_COLUMNS)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
