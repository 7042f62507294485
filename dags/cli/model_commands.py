"""`straightshot models`, `promote` and `rollback`: the registered models and which of them is champion."""

from typing import Annotated

import typer

from dags.cli.options import Home

commands = typer.Typer()


@commands.command()
def promote(
    version: Annotated[str, typer.Argument(help="A version or alias.")] = "challenger",
    force: Annotated[bool, typer.Option("--force", help="Also if the gate refuses.")] = False,
    home: Home = None,
) -> None:
    """Make a registered model champion, if the gate accepts it."""
    from pipelines.stages.promote import promote as promote_version
    from pipelines.store.home import home_path

    promotion = promote_version(home_path(home), version, force=force)
    before = f"; it was version {promotion.replaced}" if promotion.moved and promotion.replaced else ""
    typer.echo(f"champion is version {promotion.version}{before}")
    for note in promotion.notes:
        typer.echo(note, err=True)


@commands.command()
def rollback(home: Home = None) -> None:
    """Make the champion before this one champion again."""
    from pipelines.stages.promote import rollback as rollback_champion
    from pipelines.store.home import home_path

    promotion = rollback_champion(home_path(home))
    typer.echo(f"champion is version {promotion.version} again; it was version {promotion.replaced}")
    for note in promotion.notes:
        typer.echo(note, err=True)


@commands.command()
def models(
    home: Home = None,
    history: Annotated[bool, typer.Option("--history", help="Also every promotion and refusal.")] = False,
) -> None:
    """Show the registered models, their aliases and their metrics."""
    from dags.cli.tables import print_history, print_models
    from pipelines.registry.model_registry import models as registered_models
    from pipelines.stages.promote import history as promotion_history
    from pipelines.store.home import home_path

    print_models(registered_models(home_path(home)))
    if history:
        print_history(promotion_history(home_path(home)))
