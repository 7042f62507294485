"""`straightshot deploy`: what schedules and sensor run."""

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
