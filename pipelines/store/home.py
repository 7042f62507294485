"""HOME: the folder that holds everything a team has run. Opened by every command before any work.

HOME/<stage>/<fingerprint>/   outputs            HOME/run.json      the config of the last run
HOME/corpus/                  toy webs           HOME/report.html   its page
HOME/mlflow.db, mlflow/       metrics, models    HOME/dagster/      run history
"""

import os
import shutil
from pathlib import Path

from pipelines.errors import ConfigError

HOME_VARIABLE = "STRAIGHTSHOT_HOME"
DEFAULT_HOME = "runs"
FREE_BYTES = 512 * 2**20  # what must be free before work starts: a demo run writes about 200 MB


def home_path(given: str | Path | None) -> Path:
    """`--home`, else STRAIGHTSHOT_HOME, else ./runs; absolute."""
    return Path(given or os.environ.get(HOME_VARIABLE) or DEFAULT_HOME).expanduser().absolute()


def open_home(given: str | Path | None, *, free_bytes: int = FREE_BYTES) -> Path:
    """HOME, made if absent, known to be writable and to have room. Raises ConfigError otherwise."""
    home = home_path(given)
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".probe-{os.getpid()}"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"HOME {home} cannot be written: {reason}; give another with --home or {HOME_VARIABLE}"
        ) from error
    free = shutil.disk_usage(home).free
    if free < free_bytes:
        raise ConfigError(
            f"HOME {home} has {free / 2**20:,.0f} MB free and a run needs {free_bytes / 2**20:,.0f} MB; free"
            f" some, or give another with --home or {HOME_VARIABLE}"
        )
    return home
