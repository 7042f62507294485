"""`straightshot explain`."""

from pathlib import Path
from typing import Annotated

import typer

from dags.cli.options import Home

commands = typer.Typer()


@commands.command()
def explain(
    texts: Annotated[list[str] | None, typer.Argument(metavar='["TEXT"]...')] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="JSON Lines: a text, null, or an object with alt_text a line.", show_default="none"
        ),
    ] = None,
    home: Home = None,
    json: Annotated[bool, typer.Option("--json", help="One object a line.")] = False,
) -> None:
    """Say why an alt text goes on or not: each rule's answer, by the config of the last run."""
    from dags.cli.explain import explain_texts

    for line in explain_texts(texts or [], file, home, as_json=json):
        typer.echo(line)
