"""`straightshot study`."""

from typing import Annotated

import typer

from dags.cli.options import Home
from pipelines.presets import DEFAULT_PRESET

commands = typer.Typer()


@commands.command()
def study(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Of a study, or its YAML file; none: list them.")
    ] = None,
    preset: Annotated[str, typer.Option(help="The run that is varied.")] = DEFAULT_PRESET,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="Of every variant.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, show_default="the study's", help="A variant.")] = None,
    home: Home = None,
    ray: Annotated[
        str | None,
        typer.Option(help="As of `run`.", show_default="RAY_ADDRESS, else the preset's"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False,
) -> None:
    """Answer a published question in miniature: train every variant with several seeds, and compare."""
    from dags.cli.study import StudyRequest, list_studies, print_planned, print_study, study_of

    if name is None:
        list_studies()
        return
    request = StudyRequest(name, preset, tuple(overrides or ()), seeds, home, ray)
    if dry_run:
        print_planned(request)
        return
    result = study_of(request)
    if json:
        typer.echo(result.table.to_json(), nl=False)
    else:
        print_study(result)
