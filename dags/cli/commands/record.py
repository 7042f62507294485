"""`straightshot explain`, `straightshot trace` and `straightshot diff`: what becomes of records, and why."""

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


@commands.command()
def trace(
    record: Annotated[str, typer.Argument(metavar="KEY|URL|FILE", help="An image's file: whatever its URL.")],
    home: Home = None,
    json: Annotated[bool, typer.Option("--json", help="A list of objects, one a record.")] = False,
) -> None:
    """Follow a record through the DAG: the rule that ended it, or its captions, tar and models."""
    from dags.cli.records import print_traces, traces_json
    from pipelines.records.trace import trace as traced
    from pipelines.store.home import home_path

    found = traced(home_path(home), record)
    if json:
        typer.echo(traces_json(found))
    else:
        print_traces(found)


@commands.command()
def diff(
    before: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Of the filter: its fingerprint's first digits.")
    ] = None,
    after: Annotated[str | None, typer.Argument(metavar="[RUN]", show_default="the newest")] = None,
    home: Home = None,
    json: Annotated[bool, typer.Option("--json", help="Every record that changed, as one object.")] = False,
) -> None:
    """Show which records fared otherwise in another run of the filter, and why; by default the last two."""
    from dags.cli.records import diff_json, print_diff
    from pipelines.records.diff import diff as compared
    from pipelines.store.home import home_path

    found = compared(home_path(home), before, after)
    if json:
        typer.echo(diff_json(found))
    else:
        print_diff(found)
