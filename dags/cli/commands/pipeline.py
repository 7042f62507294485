"""`straightshot run`, `straightshot status` and `straightshot verify`."""

from typing import Annotated

import typer

from dags.cli.options import Home
from pipelines.presets import DEFAULT_PRESET

commands = typer.Typer()


@commands.command()
def run(
    preset: Annotated[str, typer.Option(help="micro, demo, gpu, cluster, or a YAML file.")] = DEFAULT_PRESET,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="urls:PATH | parquet:PATH | folder:PATH | webdataset:PATH | toy:N.",
            show_default="the preset's",
        ),
    ] = None,
    snapshot: Annotated[str | None, typer.Option(help="The corpus snapshot's name, e.g. 2026-11-20.")] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(help="Stages: STAGE, STAGE+ (and all after it), +STAGE (all it needs)."),
    ] = None,
    force: Annotated[list[str] | None, typer.Option(help="Stages to run again although fresh.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="Override the preset.")
    ] = None,
    home: Home = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="local | auto | HOST:PORT of a cluster.", show_default="RAY_ADDRESS, else the preset's"
        ),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Use a Ray that asks for no token.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and do nothing.")] = False,
) -> None:
    """Run the DAG: fresh outputs are kept, the others are made. The same command again resumes."""
    from dags.cli.run import RunRequest, dry_run_of, run_pipeline

    request = RunRequest(
        preset=preset,
        corpus=corpus,
        snapshot=snapshot,
        select=tuple(select or ()),
        force=tuple(force or ()),
        overrides=(*(overrides or ()), *(["insecure=true"] if insecure else [])),
        home=home,
        ray=ray,
    )
    if dry_run:
        dry_run_of(request)
    else:
        run_pipeline(request)


@commands.command()
def status(
    home: Home = None,
    json: Annotated[bool, typer.Option("--json", help="A list of objects, one per stage.")] = False,
) -> None:
    """Show each stage: fresh, stale (and why), missing, running or failed; its counts and seconds."""
    from dags.cli.tables import print_status
    from pipelines.status import status_json, status_of
    from pipelines.store.home import home_path

    plan = status_of(home_path(home))
    if json:
        typer.echo(status_json(plan))
    else:
        print_status(plan)


@commands.command()
def verify(
    target: Annotated[str | None, typer.Argument(metavar="[STAGE|PATH]", show_default="every output")] = None,
    home: Home = None,
) -> None:
    """Hash every file of the outputs and name those that were changed; or check one generated image."""
    from dags.cli.messages import FAILED
    from dags.cli.verify import verify_outputs

    if not verify_outputs(home, target, typer.echo):
        raise typer.Exit(FAILED)
