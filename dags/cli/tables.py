"""What the command prints: the tables of a plan, a status, a finished run and the registered models."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dags.cli.console import console, plain_table
from pipelines.planning.planned import Planned
from pipelines.store.home import home_folder
from pipelines.store.mirror import remote_of

if TYPE_CHECKING:
    from pipelines.registry.journal import Change
    from pipelines.registry.lineage import Lineage
    from pipelines.registry.model_version import ModelVersion
    from pipelines.registry.stored_gate import StoredGate

STYLES = {"fresh": "green", "ran": "bold green", "stale": "yellow", "missing": "yellow", "running": "cyan"}
GENERATE = 'straightshot generate "a red circle to the left of a blue square" -n 4 -o out/'


def print_status(plan: Sequence[Planned]) -> None:
    """Every stage: state, why, counts, seconds."""
    table = plain_table(
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
    console().print(table)
    _print_quality(plan)


def print_plan(plan: Sequence[Planned], todo: Collection[str], forced: Collection[str]) -> None:
    """What a run would do."""
    table = plain_table("stage", "state", "would", "why")
    for planned in plan:
        name = planned.stage.name
        would = "run" if name in todo else "keep" if planned.fresh else "leave"
        if name in todo and planned.fingerprint is None and planned.receipt is not None:
            would = "run if its inputs change"
        table.add_row(name, _state(planned.state.value), would, "forced" if name in forced else planned.why)
    console().print(table)


def print_nothing_to_do(plan: Sequence[Planned], home: Path) -> None:
    """A run that found everything fresh."""
    console().print("[green]Nothing to do:[/] every selected stage is fresh.\n")
    _print_stages(plan, frozenset())
    _print_next(plan, home)


def print_summary(plan: Sequence[Planned], ran: Collection[str], home: Path, seconds: float) -> None:
    """A run that did something: the stages, the models' metrics, where to look, what to try."""
    terminal = console()
    terminal.print()
    _print_stages(plan, ran)
    terminal.print(f"{len(ran)} of {len(plan)} stages ran, {_duration(seconds)} in all\n")
    _print_metrics(plan)
    _print_next(plan, home)


def print_models(versions: Sequence["ModelVersion"]) -> None:
    """Every registered version, the newest first."""
    if not versions:
        console().print("No model is registered yet; `straightshot run` makes one.")
        return
    from pipelines.registry.comparison import COLUMNS, LEGEND, MeasuredModel, compared

    measured = [
        MeasuredModel((v.version, ", ".join(v.aliases), _moment(v.created_at)), v.quality) for v in versions
    ]
    groups = compared(measured)
    for group in groups:
        _print_plain(f"{group.title}:")
        table = plain_table("version", "aliases", "registered", *(f">{name}" for name in COLUMNS))
        for row in group.rows:
            table.add_row(*row)
        console().print(table)
    _print_plain(LEGEND)
    if len(groups) > 1:
        _print_plain("Numbers of different tables were measured otherwise: do not compare them.")
    for version in versions:
        for note in version.notes:
            _print_plain(note)


def print_history(changes: "Sequence[Change]") -> None:
    """Every promotion, refusal, rollback and change of a gate, the oldest first."""
    table = plain_table("at", "by", "what", "model", "from", "to", "why")
    for change in changes:
        why = [] if change.done else ["begun, to be finished by the next command"]
        why += [*change.checks.values(), *(f"{name} {value}" for name, value in _limits(change.gate))]
        cells = (change.before or "–", change.after or "–", "; ".join(why))
        table.add_row(_moment(change.at), change.by, change.action, change.model, *cells)
    console().print(table)


def print_gate(gate: "StoredGate") -> None:
    """The limits of a registered name."""
    table = plain_table("limit", ">value")
    for name, value in _limits(gate.as_dict()):
        table.add_row(name, str(value))
    console().print(table)
    if gate.note:
        _print_plain(gate.note)


def print_lineage(version: "ModelVersion", lineage: "Lineage") -> None:
    """What is behind a model: outputs, sources and tars; first, whether records of it were withdrawn."""
    if version.withdrawn is not None:
        console().print(f"version {version.version}: {version.withdrawn.note}")
    outputs = plain_table("output", "snapshot", "content")
    for made in lineage.outputs:
        content = made.digest[:12] or "its receipt is gone"
        outputs.add_row(f"{made.stage}/{made.fingerprint}", made.snapshot or "–", content)
    for name, digests in lineage.sources.items():
        for digest in digests:
            outputs.add_row(name, "–", digest[:12])
    console().print(outputs)
    tars = plain_table("tar", "snapshot", "sha256", ">bytes")
    for tar in lineage.tars:
        tars.add_row(tar.name, tar.snapshot, tar.sha256, f"{tar.bytes:,}")
    console().print(tars)


def _limits(gate: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (name, "not checked" if value is None else value) for name, value in gate.get("limits", {}).items()
    ]


def _moment(text: str) -> str:
    """2026-11-20T10:20:30+00:00 as 2026-11-20 10:20 UTC."""
    return f"{text[:16].replace('T', ' ')} UTC"


def _print_stages(plan: Sequence[Planned], ran: Collection[str]) -> None:
    table = plain_table("stage", "state", ">in", ">kept", ">rejected", ">errored", ">seconds", ">memory")
    for planned in plan:
        state = "ran" if planned.stage.name in ran else planned.state.value
        table.add_row(planned.stage.name, _state(state), *_numbers(planned))
    console().print(table)


def _print_metrics(plan: Sequence[Planned]) -> None:
    """Every model at each number of steps, as evaluate measured it; the page has all of the tables."""
    from components.evaluation.results import read_metrics
    from components.reporting.quality_tables import (
        cost_table,
        coverage_table,
        distances_table,
        following_tables,
        joined,
    )

    path = _output(plan, "evaluate", "metrics.json")
    if path is None:
        return
    metrics = read_metrics(path)
    others = joined((coverage_table(metrics), distances_table(metrics), cost_table(metrics)))
    for title, quality in [
        *((table.title, table) for table in following_tables(metrics)),
        ("Coverage, distances and cost", others),
    ]:
        if quality is not None:
            console().print(f"{title}:")
            table = plain_table("model", *(f">{name}" for name in quality.columns))
            for row in quality.rows:
                table.add_row(row.label, *(cell.text for cell in row.cells))
            console().print(table)
            console().print()


def _print_quality(plan: Sequence[Planned]) -> None:
    """The student in one line, where an evaluation is there: the numbers that the gate asks for."""
    path = _output(plan, "evaluate", "metrics.json")
    if path is None:
        return
    from components.evaluation.results import read_metrics
    from components.reporting.quality_tables import summary_lines

    for line in summary_lines(read_metrics(path)):
        _print_plain(line)


def _print_next(plan: Sequence[Planned], home: Path) -> None:
    """Where to look, and what to try."""
    lines = [("report", home / "report.html"), ("samples", _output(plan, "evaluate", "samples.png"))]
    for name, path in lines:
        if path is not None and path.exists():
            _print_plain(f"{name:<8} {_short(path)}")
    if all(planned.fresh for planned in plan):
        at = "" if home == home_folder(None) else f" --home {remote_of(home) or _short(home)}"
        _print_plain(f"\nNext:\n  {GENERATE}{at}\n  straightshot ui{at}\n  straightshot status{at}")


def _output(plan: Sequence[Planned], stage: str, name: str) -> Path | None:
    """A file of a fresh stage's output, where it has one of that name."""
    for planned in plan:
        if planned.stage.name == stage and planned.fresh:
            return next(iter(planned.files(name)), None)
    return None


def _short(path: Path) -> str:
    """The path from here if it lies below, else whole."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _print_plain(text: str) -> None:
    """Plain text: paths and commands are neither wrapped nor coloured, so that they can be copied."""
    console().print(text, markup=False, highlight=False, soft_wrap=True)


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


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
