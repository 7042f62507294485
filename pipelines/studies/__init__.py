"""The studies: one question in one YAML file, with its command and what was published at the top.

Read by run.py; named by `straightshot study NAME`.
"""

import difflib
from pathlib import Path

from pydantic import ValidationError

from components.errors import one_line
from components.studies.definition import Study
from pipelines.config_draft import read_yaml
from pipelines.errors import ConfigError

FOLDER = Path(__file__).parent


def studies() -> list[str]:
    """The names of the studies that ship with Straightshot."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_study(name: str) -> Study:
    """A study by its name, or by the path of a YAML file.

    Raises ConfigError: of an unknown one with the nearest name, of a faulty one with the fault.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(name, studies(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(studies())}, or a .yaml file"
        raise ConfigError(f"study {name}: there is none; {hint}")
    try:
        return Study.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {one_line(first['msg'])}") from error
