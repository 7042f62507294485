"""`straightshot report`, `ui` and `doctor`: where to look."""

from typing import Annotated

import typer

from dags.cli.messages import FAILED
from dags.cli.options import Home

commands = typer.Typer()


@commands.command()
def report(
    home: Home = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write the run's page, report.html, and print its path."""
    from dags.cli.run import write_page
    from pipelines.store.home import open_home

    path = write_page(open_home(home))
    typer.echo(path)
    if show:
        typer.launch(path.as_uri())


@commands.command()
def ui(
    home: Home = None,
    dagster_port: Annotated[int, typer.Option(help="Dagster's port; 0: the first free one.")] = 0,
    mlflow_port: Annotated[int, typer.Option(help="MLflow's port; 0: the first free one.")] = 0,
) -> None:
    """Serve Dagster's and MLflow's pages on loopback until Ctrl-C."""
    from dags.cli.ui import serve
    from pipelines.store.home import open_home

    serve(open_home(home), dagster_port, mlflow_port, typer.echo)


@commands.command()
def doctor(home: Home = None) -> None:
    """Show versions, devices, disk, Ray and MLflow: what works here."""
    from dags.cli.doctor import print_findings
    from pipelines.store.home import home_path

    if not print_findings(home_path(home)):
        raise typer.Exit(FAILED)
