"""The presets: one experiment in one YAML file, with its command and expected score at the top.

Read by pipelines/config.py; named by `straightshot run --preset NAME`.
"""

import difflib
from pathlib import Path

from pipelines.errors import ConfigError

DEFAULT_PRESET = "demo"
FOLDER = Path(__file__).parent


def presets() -> list[str]:
    """The names of the presets that ship with Straightshot."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset_path(preset: str) -> Path:
    """The file of a preset: a name, or the path of a YAML file. Raises ConfigError naming the nearest."""
    if preset.endswith((".yaml", ".yml")):
        path = Path(preset)
        if not path.is_file():
            raise ConfigError(f"--preset {preset}: no such file; presets: {', '.join(presets())}")
        return path
    if preset not in presets():
        near = difflib.get_close_matches(preset, presets(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(presets())}, or a .yaml file"
        raise ConfigError(f"--preset {preset}: unknown preset; {hint}")
    return FOLDER / f"{preset}.yaml"
