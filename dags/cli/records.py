"""What `straightshot trace` and `straightshot diff` print."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from dags.cli.console import console, plain_table
from pipelines.records.diff import Change, Diff, Fate
from pipelines.records.trace import Trace

LISTED = 20  # records that changed; --json has all
TEXT_SHOWN = 60  # characters of an alt text


def print_traces(traces: Sequence[Trace]) -> None:
    """Each record: a line a stage, with what it measured beneath."""
    terminal = console()

    def line(text: str) -> None:
        terminal.print(text, markup=False, highlight=False, soft_wrap=True)

    for trace in traces:
        line(f"{trace.key}, snapshot {trace.snapshot}" + (f", {trace.url}" if trace.url else ""))
        for step in trace.steps:
            line(f"  {step.output}: {step.fate}")
            for name, value in step.facts.items():
                line(f"    {name}: {value:.4g}" if isinstance(value, float) else f"    {name}: {value}")
        for model in trace.models:
            line(f"  {model} was made from its tars")


def traces_json(traces: Sequence[Trace]) -> str:
    return json.dumps([asdict(trace) for trace in traces], indent=2, ensure_ascii=False, default=str)


def print_diff(diff: Diff) -> None:
    """How many went from which fate to which, then some of them."""
    terminal = console()
    terminal.print(f"{diff.before} -> {diff.after}: {len(diff.changes):,} changed, {diff.same:,} did not")
    if not diff.changes:
        return
    table = plain_table("before", "after", ">records")
    for (before, after), count in sorted(diff.moves.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(before, after, f"{count:,}")
    terminal.print(table)
    for change in diff.changes[:LISTED]:
        terminal.print(_change_line(change), markup=False, highlight=False, soft_wrap=True)
    if (more := len(diff.changes) - LISTED) > 0:
        terminal.print(f"and {more:,} more; --json lists them")


def diff_json(diff: Diff) -> str:
    return json.dumps(asdict(diff), indent=2, ensure_ascii=False)


def _change_line(change: Change) -> str:
    text = json.dumps((change.alt_text or "")[:TEXT_SHOWN], ensure_ascii=False)
    return f"{change.key} {text}: {_shown(change.before)} -> {_shown(change.after)}"


def _shown(fate: Fate) -> str:
    return f"{fate.what} ({fate.detail})" if fate.detail else fate.what
