"""`straightshot edit inpaint|colorize|upscale|sketch|measure`.

The first four take the same options, so each is written as what it alone has: a function from its image, the
model's side and its own options to an Edit. `_edit_command` makes a command of it.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dags.cli.options import Credentials, Home, Model, Number, Out, Provenance, Seed, Upsample

if TYPE_CHECKING:
    from components.editing.edits import Edit

commands = typer.Typer()
edits = typer.Typer(
    no_args_is_help=True,
    help="Make images of an image and a prompt: fill a hole, add colour, enlarge, paint over strokes.",
)
commands.add_typer(edits, name="edit")

Steps = Annotated[
    int | None,
    typer.Option(
        help="Network evaluations.", show_default="8 (of sketch 2), or the model's own if these are more"
    ),
]


def _edit(
    make: "Callable[..., Edit]",
    own: dict[str, Any],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="PNG, JPEG or WebP.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the whole image should show.")],
    model: Model = "champion",
    steps: Steps = None,
    seed: Seed = 0,
    number: Number = 1,
    out: Out = Path("out"),
    upsample: Upsample = True,
    provenance: Provenance = True,
    credentials: Credentials = None,
    home: Home = None,
) -> None:
    """Make the images of one edit and print their paths, as `generate` does."""
    from components.provenance.png import png_writer
    from dags.cli.edit import edit
    from pipelines.store.home import home_path

    files = edit(
        home_path(home),
        image,
        prompt,
        out,
        kind=make.__name__,
        make=lambda side: make(image, side, **own),
        model=model,
        count=number,
        seed=seed,
        steps=steps,
        upsample=upsample,
        writer=png_writer(provenance, credentials),
    )
    for each in files.images:
        typer.echo(f"{each.path}  {each.prompt.how}: {each.prompt.caption}")
    if files.sheet is not None:
        typer.echo(files.sheet)


def _edit_command(make: "Callable[..., Edit]") -> "Callable[..., Edit]":
    """Register a command named as `make`, with its options (those after `side`) and those of `_edit`."""
    _, _, image, prompt, *shared = inspect.signature(_edit).parameters.values()
    _, _, *own = inspect.signature(make).parameters.values()

    def command(**given: Any) -> None:
        _edit(make, {option.name: given.pop(option.name) for option in own}, **given)

    command.__signature__ = inspect.Signature([image, prompt, *own, *shared])  # type: ignore[attr-defined]  # for typer
    command.__annotations__ = {}  # typer reads the signature
    edits.command(make.__name__, help=make.__doc__)(command)
    return make


@_edit_command
def inpaint(
    image: Path,
    side: int,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="An image as large as IMAGE: what is white in it is filled; of a mask with transparent parts"
            " these are.",
            show_default="what is transparent in IMAGE",
        ),
    ] = None,
) -> "Edit":
    """Fill a part of an image; the rest stays as it is.

    Of an image of another size than the model's, its centre square is taken and resized.
    """
    from components.editing.inputs import read_inpainting

    return read_inpainting(image, mask, side)


@_edit_command
def colorize(image: Path, side: int) -> "Edit":
    """Colour a grey image; its brightness stays as it is.

    Of an image of another size than the model's, its centre square is taken and resized. If it has colours,
    they do not count.
    """
    from components.editing.edits import colorization
    from components.editing.inputs import read_image

    return colorization(read_image(image, side))


@_edit_command
def upscale(image: Path, side: int) -> "Edit":
    """Enlarge a small image to the model's size; shrunk again, it is as it was.

    Its centre square is taken, and is not resized: the shorter side of IMAGE must divide the model's.
    """
    from components.editing.inputs import read_super_resolution

    return read_super_resolution(image, side)


@_edit_command
def sketch(
    image: Path,
    side: int,
    strength: Annotated[
        float | None,
        typer.Option(
            help="How freely the strokes are read, from 0 (as they are) to 1 (not at all).",
            show_default="0.5",
        ),
    ] = None,
) -> "Edit":
    """Make an image of a painting of rough strokes.

    Of an image of another size than the model's, its centre square is taken and resized.
    """
    from components.editing.edits import STROKES_STRENGTH, stroke_guided
    from components.editing.inputs import read_image

    return stroke_guided(read_image(image, side), STROKES_STRENGTH if strength is None else strength)


@edits.command()
def measure(
    model: Model = "champion",
    images: Annotated[int, typer.Option(min=2, help="Held-out images, at most.")] = 100,
    steps: Steps = None,
    seed: Seed = 0,
    picture: Annotated[
        Path | None, typer.Option(help="A PNG to write that shows the first images.", show_default="none")
    ] = None,
    home: Home = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Edit held-out images of the last run and compare the results, and trivial ones, with the truth."""
    from dags.cli.edit_measurement import measurement_json, print_measurement, write_picture
    from pipelines.edit_measurement import measure_editing
    from pipelines.execution.progress import Progress
    from pipelines.store.home import home_path

    results = measure_editing(model, home_path(home), Progress(), images=images, steps=steps, seed=seed)
    if json:
        typer.echo(measurement_json(results.measurement))
    else:
        print_measurement(results.measurement)
    if picture is not None:
        write_picture(results, picture)
