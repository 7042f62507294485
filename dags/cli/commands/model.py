"""`straightshot models`, `promote`, `rollback`, `gate`, `lineage`: registered models and their champion."""

from pathlib import Path
from typing import Annotated

import typer

from dags.cli.messages import FAILED
from dags.cli.options import Home

commands = typer.Typer()
gate = typer.Typer(no_args_is_help=True)
commands.add_typer(gate, name="gate", help="The limits that a model must reach to become champion.")
Name = Annotated[str, typer.Option("--name", help="The registered name.")]
NAME = "straightshot"


@commands.command()
def promote(
    version: Annotated[str, typer.Argument(help="A version or alias.")] = "challenger",
    force: Annotated[bool, typer.Option("--force", help="Also if the gate refuses.")] = False,
    first: Annotated[
        bool, typer.Option("--first", help="Also if nothing compares it with the champion.")
    ] = False,
    home: Home = None,
    name: Name = NAME,
) -> None:
    """Make a registered model champion, if the gate accepts it."""
    from pipelines.absence import notice_champion
    from pipelines.registry.champion import promote as promote_version
    from pipelines.store.home import home_path

    promotion = promote_version(home_path(home), version, name=name, force=force, first=first)
    notice_champion(home_path(home), name)
    before = f"; it was version {promotion.replaced}" if promotion.moved and promotion.replaced else ""
    typer.echo(f"champion is version {promotion.version}{before}")
    for note in promotion.notes:
        typer.echo(note, err=True)


@commands.command()
def rollback(home: Home = None, name: Name = NAME) -> None:
    """Make the champion before this one champion again; the one that goes stays barred."""
    from pipelines.absence import notice_champion
    from pipelines.registry.champion import rollback as rollback_champion
    from pipelines.store.home import home_path

    promotion = rollback_champion(home_path(home), name=name)
    notice_champion(home_path(home), name)
    typer.echo(
        f"champion is version {promotion.version} again; version {promotion.replaced} stays barred until"
        f" `straightshot promote {promotion.replaced} --force`"
    )
    for note in promotion.notes:
        typer.echo(note, err=True)


@commands.command()
def models(
    home: Home = None,
    name: Name = NAME,
    history: Annotated[bool, typer.Option("--history", help="Also every promotion and refusal.")] = False,
    card: Annotated[str | None, typer.Option("--card", help="The card of a version or alias.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Hash every file of every version.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Also restore what is damaged.")] = False,
) -> None:
    """Show the registered models, their aliases and their metrics."""
    from dags.cli.tables import print_history, print_models
    from pipelines.registry.champion import history as champion_history
    from pipelines.registry.model_card import registered_card
    from pipelines.registry.model_registry import models as registered_models
    from pipelines.store.home import home_path

    folder = home_path(home)
    if card is not None:
        typer.echo(registered_card(folder, card, name=name))
    elif check or repair:
        _inspect(folder, name, repair=repair)
    else:
        print_models(registered_models(folder, name=name))
        if history:
            print_history(champion_history(folder, name=name))


@commands.command()
def lineage(
    what: Annotated[
        str, typer.Argument(help="A version or alias; or a snapshot, a tar, a hash: which models have it.")
    ],
    home: Home = None,
    name: Name = NAME,
) -> None:
    """Show which outputs, snapshots and tars a model was made from; or which models were made from one."""
    from dags.cli.tables import print_lineage
    from pipelines.registry.lineage import descendants, is_registered, lineage_of_version
    from pipelines.store.home import home_path

    folder = home_path(home)
    if is_registered(folder, what, name=name):
        print_lineage(*lineage_of_version(folder, what, name=name))
        return
    for version in descendants(folder, what, name=name):
        aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
        typer.echo(f"version {version.version}{aliases} of {version.created_at}")


@gate.command()
def show(home: Home = None, name: Name = NAME) -> None:
    """Show the limits that are stored with the registered name."""
    from dags.cli.tables import print_gate
    from pipelines.registry.champion import stored_gate
    from pipelines.store.home import home_path

    stored = stored_gate(home_path(home), name=name)
    if stored is None:
        typer.echo(f"'{name}' has no gate yet; its first promotion stores that of the run's config")
        return
    typer.echo(f"gate of '{name}', version {stored.version}:")
    print_gate(stored)


@gate.command("set")
def set_limits(
    limits: Annotated[
        list[str], typer.Argument(help="LIMIT=VALUE …, null: not checked.", metavar="LIMIT=VALUE")
    ],
    home: Home = None,
    name: Name = NAME,
) -> None:
    """Store other limits with the registered name; those that are not named stay."""
    from dags.cli.tables import print_gate
    from pipelines.registry.champion import set_gate
    from pipelines.registry.stored_gate import with_limits
    from pipelines.store.home import home_path

    stored = set_gate(home_path(home), lambda now: with_limits(now, limits), name=name)
    typer.echo(f"gate of '{name}', version {stored.version}:")
    print_gate(stored)


def _inspect(folder: Path, name: str, *, repair: bool) -> None:
    """Say of each version whether its files are as registered. Exit status 1 where some are not."""
    from pipelines.registry.repair import inspect

    wrong = False
    for inspection in inspect(folder, name=name, repair=repair):
        left = [path for path in inspection.damaged if path not in inspection.restored]
        wrong |= bool(left)
        says = f"restored {', '.join(inspection.restored)}" if inspection.restored else ""
        says += f"{'; ' * bool(says)}damaged: {', '.join(left)}; {inspection.advice}" if left else ""
        typer.echo(f"version {inspection.version.version}: {says or 'ok'}")
    if wrong:
        raise typer.Exit(FAILED)
