"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path | None,
    typer.Option("--home", help="The folder of all outputs.", show_default="STRAIGHTSHOT_HOME, else ./runs"),
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
