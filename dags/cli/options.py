"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path | None,
    typer.Option("--home", help="The folder of all outputs.", show_default="STRAIGHTSHOT_HOME, else ./runs"),
]
