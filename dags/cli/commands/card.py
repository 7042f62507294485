"""`straightshot card`: what the shards say of themselves, for people and for programs."""

from pathlib import Path
from typing import Annotated

import typer

from dags.cli.options import Home

commands = typer.Typer()


@commands.command()
def card(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The folder that README.md and croissant.json are written to.")
    ] = Path("card"),
    name: Annotated[str, typer.Option(help="The dataset's name.")] = "Straightshot dataset",
    snapshot: Annotated[
        str | None, typer.Option(help="Whose shards.", show_default="that of the newest shards")
    ] = None,
    terms: Annotated[
        str, typer.Option("--license", help="Of the dataset as a whole: an address, or an SPDX id.")
    ] = "https://choosealicense.com/no-permission/",
    url: Annotated[
        str | None, typer.Option(help="Where the dataset is published.", show_default="not said")
    ] = None,
    home: Home = None,
) -> None:
    """Write a dataset card and Croissant metadata, to publish beside the tars: from receipts and records."""
    from pipelines.records.dataset_card import write_card
    from pipelines.store.home import home_path

    for path in write_card(home_path(home), out, name=name, snapshot=snapshot, terms=terms, url=url):
        typer.echo(path)
