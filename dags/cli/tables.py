"""What the command prints: the tables of a plan, a status and a finished run."""

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
    for one in plan:
        table.add_row(one.stage.name, one.snapshot, _state(one.state.value), *_numbers(one), one.why)
    _console().print(table)


def print_plan(plan: Sequence[Planned], todo: Collection[str], forced: Collection[str]) -> None:
    """What a run would do."""
    table = _table("stage", "state", "would", "why")
    for one in plan:
        name = one.stage.name
        would = "run" if name in todo else "keep" if one.fresh else "leave"
        if name in todo and one.fingerprint is None and one.receipt is not None:
            would = "run if its inputs change"
        table.add_row(name, _state(one.state.value), would, "forced" if name in forced else one.why)
    _console().print(table)


def print_nothing_to_do(plan: Sequence[Planned], home: Path) -> None:
    """A run that found everything fresh."""
    _console().print("[green]Nothing to do:[/] every stage asked for is fresh.\n")
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
    measures = ("prompt_following", "share_of_teacher", "frechet", "judge_score")
    table = _table("version", "aliases", "registered", *(f">{name.replace('_', ' ')}" for name in measures))
    for one in versions:
        numbers = one.quality.numbers if one.quality else {}
        shown = (f"{numbers[name]:.3f}" if name in numbers else "–" for name in measures)
        table.add_row(one.version, ", ".join(one.aliases), _moment(one.created_at), *shown)
    _console().print(table)
    for one in versions:
        for note in one.notes:
            _say(note)


def print_history(moves: Sequence[Mapping[str, Any]]) -> None:
    """Every move of the champion, the oldest first."""
    table = _table("at", "by", "what", "model", "from", "to", "why")
    for move in moves:
        words = (move["action"], move["model"], move["from"] or "–", move["to"])
        table.add_row(_moment(move["at"]), move["by"], *words, "; ".join(move["checks"].values()))
    _console().print(table)


def _moment(text: str) -> str:
    """2026-11-20T10:20:30+00:00 as 2026-11-20 10:20 UTC."""
    return f"{text[:16].replace('T', ' ')} UTC"


def _print_stages(plan: Sequence[Planned], ran: Collection[str]) -> None:
    table = _table("stage", "state", ">in", ">kept", ">rejected", ">errored", ">seconds", ">memory")
    for one in plan:
        state = "ran" if one.stage.name in ran else one.state.value
        table.add_row(one.stage.name, _state(state), *_numbers(one))
    _console().print(table)


def _print_metrics(plan: Sequence[Planned]) -> None:
    """Teacher and student at each number of steps, as evaluate measured them."""
    from components.evaluation.metrics import METRICS
    from components.evaluation.results import read_metrics

    path = _output(plan, "evaluate", "metrics.json")
    if path is None:
        return
    found = read_metrics(path).evaluations
    categories = list(dict.fromkeys(name for one in found for name in one.prompt_following))
    table = _table("model", ">steps", *([">mean"] if categories else []), *(f">{c}" for c in categories))
    for name in (*(metric.label for metric in METRICS), "ms/image"):
        table.add_column(name, justify="right")
    for one in found:
        following = [f"{one.mean:.3f}" if one.mean is not None else "–"] if categories else []
        following += [
            f"{one.prompt_following[c]:.2f}" if c in one.prompt_following else "–" for c in categories
        ]
        seconds = one.seconds_per_image
        rest = [metric.show(one.metrics.get(metric.name)) for metric in METRICS]
        rest.append("–" if seconds is None else f"{1000 * seconds:.1f}")
        table.add_row(one.model, str(one.steps), *following, *rest)
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
            _say(f"{name:<8} {_short(path)}")
    if all(one.fresh for one in plan):
        at = "" if home == home_path(None) else f" --home {_short(home)}"
        _say(f"\nNext:\n  {GENERATE}{at}\n  straightshot ui{at}\n  straightshot status{at}")


def _output(plan: Sequence[Planned], stage: str, name: str) -> Path | None:
    """A file of a fresh stage's output."""
    for one in plan:
        if one.stage.name == stage and one.fresh and one.path is not None and (one.path / name).is_file():
            return one.path / name
    return None


def _short(path: Path) -> str:
    """The path from here if it lies below, else whole."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _say(text: str) -> None:
    """Plain text: paths and commands are neither wrapped nor coloured, so that they can be copied."""
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


def _numbers(one: Planned) -> tuple[str, ...]:
    """in, kept, rejected, errored, seconds, peak memory of an output; dashes where there is none."""
    receipt = one.receipt if one.fresh else None
    if receipt is None:
        return ("–",) * 6
    counts = receipt.counts
    records = (counts.in_, counts.kept, counts.rejected, counts.errored)
    shown = tuple(f"{n:,}" for n in records) if counts.in_ else ("–",) * 4
    return (*shown, f"{receipt.seconds:,.1f}", f"{receipt.peak_rss_mb:,.0f} MB")


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
