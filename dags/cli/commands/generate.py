"""`straightshot generate`."""

from pathlib import Path
from typing import Annotated

import typer

from components.diffusion.config import SamplerName, VarianceName
from dags.cli.options import Credentials, Home, Model, Number, Out, Provenance, Seed, Upsample

commands = typer.Typer()


@commands.command()
def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="What the images should show.")],
    model: Model = "champion",
    steps: Annotated[
        int | None, typer.Option(help="Network evaluations.", show_default="the model's own")
    ] = None,
    seed: Seed = 0,
    number: Number = 1,
    out: Out = Path("out"),
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale, for a model that was not distilled with one.")
    ] = None,
    sampler: Annotated[
        SamplerName | None, typer.Option(help="For a teacher.", show_default="the model's own")
    ] = None,
    eta: Annotated[
        float | None, typer.Option(min=0, max=1, help="Noise that sampler ddim adds; 0: none.")
    ] = None,
    variance: Annotated[
        VarianceName | None, typer.Option(help="Of the steps of sampler ddpm.", show_default="beta_tilde")
    ] = None,
    guidance_interval: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Times at which guidance acts; 0: the image, 1: the noise."),
    ] = None,
    guidance_rescale: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the way back to the contrast without guidance."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT", help="Of the images, in pixels.", show_default="the model's own"
        ),
    ] = None,
    upsample: Upsample = True,
    provenance: Provenance = True,
    credentials: Credentials = None,
    home: Home = None,
) -> None:
    """Generate images with the promoted one-step model, or with another."""
    from components.provenance.png import png_writer
    from dags.cli.generate import generate as generate_files
    from pipelines.store.home import home_path

    files = generate_files(
        home_path(home),
        prompts,
        out,
        model=model,
        count=number,
        seed=seed,
        steps=steps,
        guidance=guidance,
        sampler={
            "name": sampler,
            "eta": eta,
            "variance": variance,
            "guidance_interval": guidance_interval,
            "guidance_rescale": guidance_rescale,
        },
        size=size,
        upsample=upsample,
        writer=png_writer(provenance, credentials),
    )
    for image in files.images:
        typer.echo(f"{image.path}  {image.prompt.how}: {image.prompt.caption}")
    if files.note is not None:
        typer.echo(files.note, err=True)
    if files.sheet is not None:
        typer.echo(files.sheet)
