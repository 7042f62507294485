"""`straightshot export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dags.cli.options import Home, Model

commands = typer.Typer()


@commands.command()
def export(
    to: Annotated[Literal["diffusers", "onnx"], typer.Option("--to", help="What will read it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write; not there yet, or empty.")],
    model: Model = "champion",
    home: Home = None,
) -> None:
    """Write a model as a pipeline of diffusers, or a student as an ONNX graph; without its upsampler."""
    from components.exporting.export import export_model
    from pipelines.registry.model_registry import resolve
    from pipelines.store.home import home_path

    export_model(resolve(model, home_path(home)), to, out)
    typer.echo(f"{out}  {to}: see {out / 'README.md'}")
