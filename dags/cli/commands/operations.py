"""`straightshot deploy`, `retry` and `watch`: what runs by itself, what is run again, what did not run."""

from typing import Annotated

import typer

from dags.cli.options import Home

commands = typer.Typer()


@commands.command()
def deploy(
    config: Annotated[
        str | None,
        typer.Argument(help="A preset, or a YAML file.", show_default="show what is deployed"),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="Override the config.")
    ] = None,
    home: Home = None,
) -> None:
    """Have schedules and sensor run a reviewed config from now on; without one, show which they run."""
    from dags.cli.deploy import deploy_config, deployed_lines
    from pipelines.errors import ConfigError

    if config is None and overrides:
        raise ConfigError("--set goes with the config that it changes: straightshot deploy CONFIG --set ...")
    lines = deployed_lines(home) if config is None else deploy_config(home, config, overrides or ())
    for line in lines:
        typer.echo(line)


@commands.command()
def retry(
    run: Annotated[
        str | None,
        typer.Argument(help="A run's id in Dagster, or its start.", show_default="the last one that failed"),
    ] = None,
    home: Home = None,
) -> None:
    """Run a failed run again with its own settings; what it had finished is kept."""
    from dags.launch import retry as retry_run
    from pipelines.store.home import open_home

    retried = retry_run(open_home(home), run)
    typer.echo(
        f"run {retried.of[:8]} was done again as {retried.run_id[:8]}: {retried.stages} stages, all done"
    )


@commands.command()
def watch(home: Home = None) -> None:
    """Say what did not happen (a silent sensor, no new champion); status 1 if anything is amiss."""
    import time

    from dags.cli.messages import FAILED
    from dags.instance import open_instance
    from dags.watch import look
    from pipelines.store.home import open_home

    folder = open_home(home)
    with open_instance(folder) as instance:
        lines = look(folder, instance, time.time())
    for line in lines:
        typer.echo(line)
    if lines:
        raise typer.Exit(FAILED)
    typer.echo("all is well")
