"""`straightshot gc` and `straightshot withdraw`: what goes from a HOME."""

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
