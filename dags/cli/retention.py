"""What `straightshot gc` and `straightshot withdraw` do and print."""

from pathlib import Path

import typer

from dags.cli.console import console, plain_table
from pipelines.errors import ConfigError
from pipelines.execution.progress import Progress
from pipelines.retention.collection import Item, collect, survey
from pipelines.retention.takedown import purge, requested, take_down

LOG_COLUMNS = 140  # the width of what goes to a file or a pipe


def collect_garbage(home: Path, keep: int, *, dry_run: bool) -> None:
    """Show what goes and what stays, then delete what goes. Raises ConfigError where there is no HOME."""
    if not home.is_dir():
        raise ConfigError(f"there is no HOME at {home}; give another with --home")
    found = survey(home, keep)
    going = found.going
    table = plain_table("", "output", "snapshot", ">MB", "why")
    for item in sorted(found.items, key=lambda item: (item.stays, item.path)):
        verdict = "[green]stays[/]" if item.stays else "[yellow]goes[/]"
        table.add_row(
            verdict, str(item.path.relative_to(home)), item.snapshot, f"{item.bytes / 1e6:,.1f}", item.why
        )
    console(LOG_COLUMNS).print(table)
    stay = [item for item in found.items if item.stays]
    would = "would go" if dry_run else "to go"
    typer.echo(f"{len(going)} {would}, {_total(going)}; {len(stay)} stay, {_total(stay)}")
    if dry_run or not going:
        return
    with Progress().task("gc", max(1, sum(item.bytes for item in going)), "bytes") as advance:
        used = collect(found, lambda item: advance(item.bytes))
    for item in used:
        typer.echo(f"{item.path.relative_to(home)} stays: {item.why}")
    typer.echo(f"deleted {_total([item for item in going if item.path not in {u.path for u in used}])}")


def withdraw_records(
    home: Path, keys: list[str], file: Path | None, *, reason: str, unseen: bool, purge_them: bool
) -> None:
    """Withdraw, then say what holds the withdrawn records still. Raises ConfigError."""
    if not home.is_dir():
        raise ConfigError(f"there is no HOME at {home}; give another with --home")
    takedown = take_down(home, requested(keys, file, reason), unseen=unseen)
    for withdrawal in takedown.new:
        typer.echo(f"withdrawn: {withdrawal.what}")
    noun = "withdrawal" if len(takedown.all) == 1 else "withdrawals"
    typer.echo(f"{len(takedown.all)} {noun} under {home}, {len(takedown.new)} of them new")
    for marked in takedown.marked:
        name = f"version {marked.version.version} of '{marked.version.name}'"
        roles = f" ({', '.join(marked.version.aliases)})" if marked.version.aliases else ""
        if marked.records is None:
            typer.echo(f"{name}{roles}: its shards are not here, so whether they hold one cannot be told")
        else:
            typer.echo(f"{name}{roles}: trained on {marked.records} withdrawn; marked so")
    if purge_them:
        for holding, why in purge(home, takedown):
            typer.echo(f"{holding.output.name} {'stays: ' + why if why else 'deleted'}")
        return
    for holding in takedown.holdings:
        typer.echo(f"{holding.output.path} holds {holding.records} of them")
    if takedown.holdings:
        typer.echo(
            "`straightshot run` makes shards without them; `straightshot withdraw --purge` deletes these"
            " outputs. The corpus itself is not changed."
        )


def _total(items: list[Item]) -> str:
    return f"{sum(item.bytes for item in items) / 1e6:,.1f} MB"
