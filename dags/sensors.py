"""The sensor: the deployed config makes the data of each new snapshot in the snapshots' folder.

The folder is STRAIGHTSHOT_SNAPSHOTS, by default HOME/snapshots; it may be an s3:// URL. Each entry is one
snapshot and has its name: `2026-11-20.parquet`, or a folder `2026-11-20/` of Parquet files, tars, or images.
An upload counts as done when the folder has a `_SUCCESS` file, or when two ticks in a row find the same
files with the same sizes and times. A snapshot that fails is tried `operations.snapshot_attempts` times, then
named in an alert and left until its files or the deployed config change.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from components.errors import InputError, one_line
from dags.assets import snapshots
from dags.attempts import Attempts
from dags.jobs import data
from pipelines.alerts import alert
from pipelines.config import config_of_snapshot
from pipelines.deployment import Deployment, deployment
from pipelines.errors import ConfigError
from pipelines.pipeline import Pipeline
from pipelines.snapshots import name_fault, registered
from pipelines.sources import find_source
from pipelines.store.home import home_path
from pipelines.store.mirror import remote_of
from pipelines.store.receipts import json_digest

if TYPE_CHECKING:
    from upath import UPath

SNAPSHOTS_VARIABLE = "STRAIGHTSHOT_SNAPSHOTS"
COMPLETE = "_SUCCESS"  # an empty file in a snapshot's folder: all of it is there
INTERVAL_SECONDS = 30
TAGS = {"straightshot/started_by": "sensor"}


@dataclass(frozen=True)
class Upload:
    """One entry of the folder. uri: how its corpus is read; listing: digest of its names, sizes and times."""

    name: str
    uri: str
    listing: str
    marked: bool  # has a _SUCCESS file


@dg.sensor(
    job=data,
    name="new_snapshots",
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_snapshots(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    home = home_path(None)
    folder = os.environ.get(SNAPSHOTS_VARIABLE) or f"{remote_of(home) or home}/snapshots"
    try:
        deployed = deployment(home)
        found = uploads(folder)
    except ConfigError as error:
        return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
    tick = Tick(context.instance, home, deployed, json.loads(context.cursor or "{}"))
    requests = list(tick.requests(found))
    for line in tick.lines:
        context.log.info(line)
    names = [request.partition_key or "" for request in requests]
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else "; ".join(tick.lines) or f"nothing new in {folder}",
        dynamic_partitions_requests=[snapshots.build_add_request(names)] if names else [],
        cursor=tick.cursor(),
    )


class Tick:
    """One look at the folder. `lines` collects why entries are not requested."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        home: Path,
        deployed: Deployment,
        before: dict[str, dict[str, str]],
    ) -> None:
        self.instance = instance
        self.home = home
        self.deployed = deployed
        self.lines: list[str] = []
        self._seen = before.get("seen", {})  # name -> listing, at the tick before
        self._made = before.get("made", {})  # name -> listing, when it was found made
        self._alerted = before.get("alerted", {})  # name -> the line that was sent
        self._now_seen: dict[str, str] = {}
        self._now_alerted: dict[str, str] = {}

    def requests(self, found: list[Upload | str]) -> Iterator[dg.RunRequest]:
        """The runs of the snapshots that are new, whole, and may be tried."""
        for upload in found:
            if isinstance(upload, str):
                self._refuse(upload, upload)
                continue
            self._now_seen[upload.name] = upload.listing
            try:
                attempts = self._attempts(upload)
            except ConfigError as error:
                self._refuse(upload.name, f"snapshot {upload.name}: {error}")
                continue
            if attempts is not None and attempts.due(time.time()):
                yield attempts.request(TAGS)

    def cursor(self) -> str:
        """What the next tick has to know."""
        made = {name: listing for name, listing in self._made.items() if name in self._now_seen}
        return json.dumps({"seen": self._now_seen, "made": made, "alerted": self._now_alerted})

    def _attempts(self, upload: Upload) -> Attempts | None:
        """The attempts at a snapshot; None when it is made or not whole yet. Raises ConfigError."""
        config, name = self.deployed.config, upload.name
        if self._made.get(name) == upload.listing:
            return None
        if Pipeline(config, self.home).past.any_of(name, ["shard"]):
            record = registered(self.home, name)
            if record is not None and record.corpus != upload.uri:
                raise ConfigError(f"it is registered as {record.corpus}; give {upload.uri} another name")
            if self._made.setdefault(name, upload.listing) != upload.listing:
                raise ConfigError("its files changed after it was made; give the new state another name")
            return None
        if not upload.marked and self._seen.get(name) != upload.listing:
            self.lines.append(f"snapshot {name}: its files are new or still change; looked at again")
            return None
        find_source("labelled", config_of_snapshot(config, self.home, name, upload.uri), self.home)
        attempts = Attempts.of(self.instance, name, upload.listing, self.deployed, corpus=upload.uri)
        if attempts.given_up:
            raise ConfigError(
                f"it failed {attempts.failures} times and is left until its files or the deployed config"
                " change; see its runs in Dagster's page"
            )
        return attempts

    def _refuse(self, name: str, line: str) -> None:
        """Say why it is not made; as an alert, too, the first time."""
        self.lines.append(line)
        self._now_alerted[name] = line
        if self._alerted.get(name) != line:
            alert(self.home, "snapshot_refused", line)


def uploads(folder: str) -> list[Upload | str]:
    """The entries of the folder in name order; of one whose name cannot be a snapshot's, what is wrong.

    Entries with nothing to read in them, and hidden ones, are left out. Raises ConfigError where it cannot be
    read.
    """
    from components.corpus.locations import location, reading_errors

    try:
        root = location(folder)
        if not root.is_dir():
            raise ConfigError(f"no folder at {folder}")
        return _uploads(root)
    except reading_errors(InputError) as error:
        raise ConfigError(f"{folder} cannot be read: {one_line(error)}") from error


def _uploads(root: "UPath") -> list[Upload | str]:
    found: dict[str, Upload | str] = {}
    for path in sorted(root.iterdir()):
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        kind = None if path.name.startswith(".") else _kind(files)
        if kind is None:
            continue
        name = path.stem if path.is_file() else path.name
        if (fault := name_fault(name)) is not None:
            found[str(path)] = f"{path}: '{name}' cannot name a snapshot: {fault}; rename it"
        elif name in found:
            found[str(path)] = f"{path}: another entry is snapshot '{name}' already; rename one of them"
        else:
            marked = path.is_dir() and (path / COMPLETE).is_file()
            found[name] = Upload(name, f"{kind}:{path}", _listing(path, files), marked)
    return list(found.values())


def _listing(path: "UPath", files: list["UPath"]) -> str:
    """Digest of the files' names, sizes and modification times."""
    stats = [(file.relative_to(path.parent).as_posix(), file.stat()) for file in files]
    return json_digest([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def _kind(files: list["UPath"]) -> str | None:
    """How a snapshot's files are read; None where there is nothing to read."""
    suffixes = {file.suffix.lower() for file in files}
    for suffix, kind in ((".parquet", "parquet"), (".tar", "webdataset")):
        if suffix in suffixes:
            return kind
    return "folder" if suffixes & {".jpg", ".jpeg", ".png", ".webp"} else None
