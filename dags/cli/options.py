"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path | None,
    typer.Option("--home", help="The folder of all outputs.", show_default="STRAIGHTSHOT_HOME, else ./runs"),
]

Model = Annotated[
    str, typer.Option("--model", help="champion, challenger, previous, a models:/ URI, or a model's folder.")
]

Number = Annotated[int, typer.Option("-n", min=1, help="Images of each prompt.")]

Out = Annotated[Path, typer.Option("-o", "--out", help="The folder they are written to.")]

Seed = Annotated[int, typer.Option(help="The same seed gives the same images.")]

Upsample = Annotated[
    bool, typer.Option("--upsample/--as-is", help="Expand the prompt to a long caption first, or not.")
]

Provenance = Annotated[
    bool,
    typer.Option(
        "--provenance/--no-provenance",
        envvar="STRAIGHTSHOT_PROVENANCE",
        help="Say in each image, signed, that a model made it.",
    ),
]

Credentials = Annotated[
    Path | None,
    typer.Option(
        "--credentials",
        help="A PEM file with the certificate and key to sign images with.",
        show_default="STRAIGHTSHOT_CREDENTIALS, else self-signed ones in the user's configuration folder",
    ),
]
