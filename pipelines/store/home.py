"""HOME: the folder that holds everything a team has run. Opened by every command before any work.

HOME/<stage>/<fingerprint>/   outputs            HOME/run.json      the config of the last run
HOME/corpus/                  toy webs           HOME/report.html   its page
HOME/withdrawn/               takedowns          HOME/models/       models fetched from a remote registry
HOME/mlflow.db, mlflow/       metrics, models    HOME/dagster/      run history
HOME/cache/verified.json      what was hashed    HOME/logs/         of `straightshot ui`
HOME/registered/              snapshots' corpora HOME/deployed.yaml what schedules and sensor run
HOME/alerts/, noticed.json    alerts that wait   HOME/snapshots/    uploads that the sensor finds

Everything here is written through components/durable.py and the store, but for what MLflow, Dagster and the
logs write themselves.
"""

import os
import re
import secrets
import shutil
from pathlib import Path

from components.durable import sweep
from components.errors import one_line
from pipelines.errors import ConfigError
from pipelines.store.mirror import mirror_of, refresh, remote_of

HOME_VARIABLE = "STRAIGHTSHOT_HOME"
DEFAULT_HOME = "runs"
FREE_BYTES = 512 * 2**20  # what must be free before work starts: a demo run writes about 200 MB
ABANDONED_SECONDS = 86400.0  # a temporary file of HOME itself that is older belongs to a killed process
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # a Path makes one slash of s3://'s two; C:/ is a drive


def home_folder(home: str | Path | None) -> Path:
    """`--home`, else STRAIGHTSHOT_HOME, else ./runs; absolute. Of s3://BUCKET/PREFIX, its mirror as it is.

    Raises ConfigError for another URL.
    """
    text = str(home or os.environ.get(HOME_VARIABLE) or DEFAULT_HOME)
    if url := URL.match(text):
        return _mirror(url[1], text[url.end() :])
    return Path(text).expanduser().absolute()


def home_path(home: str | Path | None) -> Path:
    """`home_folder`, of a bucket with what its mirror must have for a look. Raises ConfigError."""
    folder = home_folder(home)
    try:
        refresh(folder)
    except OSError as error:
        raise ConfigError(f"HOME {remote_of(folder)} cannot be read: {one_line(error)}") from error
    return folder


def _mirror(scheme: str, place: str) -> Path:
    bucket, _, prefix = place.strip("/").partition("/")
    if scheme != "s3" or not prefix:
        raise ConfigError(
            f"HOME {scheme}://{place}: HOME is a folder, or s3://BUCKET/PREFIX; give one with --home or"
            f" {HOME_VARIABLE}"
        )
    return mirror_of(bucket, prefix)


def free_bytes(home: Path) -> int:
    """What is free on the disk that HOME is on, or would be made on."""
    return shutil.disk_usage(next(folder for folder in (home, *home.parents) if folder.exists())).free


def open_home(home: str | Path | None, *, free_bytes: int = FREE_BYTES) -> Path:
    """HOME, made if absent, known to be writable and to have room. Raises ConfigError otherwise."""
    folder = home_path(home)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
        sweep(folder, older_than=ABANDONED_SECONDS, recursive=False)
        _check_writable(folder)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise ConfigError(
            f"HOME {remote_of(folder) or folder} cannot be written: {reason}; give another with --home or"
            f" {HOME_VARIABLE}"
        ) from error
    free = shutil.disk_usage(folder).free
    if free < free_bytes:
        raise ConfigError(
            f"HOME {folder} has {free / 2**20:,.0f} MB free and a run needs {free_bytes / 2**20:,.0f} MB;"
            f" free some, or give another with --home or {HOME_VARIABLE}"
        )
    return folder


def _check_writable(folder: Path) -> None:
    """Raise OSError when HOME is in a bucket that takes no conditional put."""
    if (remote := remote_of(folder)) is None:
        return
    key = f".probe-{secrets.token_hex(4)}"
    tag = remote.put(key, b"1", if_match=None)
    if tag is None or remote.put(key, b"2", if_match=None) is not None:
        raise OSError("the service does not keep the conditions of a put (If-None-Match)")
    remote.remove(key)
