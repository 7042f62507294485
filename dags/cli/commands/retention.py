"""`straightshot gc` and `straightshot withdraw`: what goes from a HOME."""

from pathlib import Path
from typing import Annotated

import typer

from dags.cli.options import Home

commands = typer.Typer()


@commands.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and do nothing.")] = False,
    keep: Annotated[
        int, typer.Option("--keep", min=1, help="Newest outputs of each stage to keep for each snapshot.")
    ] = 2,
    home: Home = None,
) -> None:
    """Delete the outputs that no model in use, no run and no recent output needs."""
    from dags.cli.retention import collect_garbage
    from pipelines.store.home import home_path

    collect_garbage(home_path(home), keep, dry_run=dry_run)


@commands.command()
def withdraw(
    key: Annotated[list[str] | None, typer.Option("--key", help="A record's key; may be repeated.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="An image, or a text of keys, one a line.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Kept with the withdrawal.")] = "",
    unseen: Annotated[bool, typer.Option("--unseen", help="Also what no output here has.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also delete the outputs that hold a withdrawn record.")
    ] = False,
    home: Home = None,
) -> None:
    """Take records out of every later version of the shards, and mark the models trained on them.

    Without --key and --file: what was withdrawn so far, and where it still is.
    """
    from dags.cli.retention import withdraw_records
    from pipelines.store.home import home_path

    withdraw_records(home_path(home), key or [], file, reason=reason, unseen=unseen, purge_them=purge)
