"""The sensor: a new snapshot in the snapshots' folder is filtered, captioned and sharded.

The folder is STRAIGHTSHOT_SNAPSHOTS, by default HOME/snapshots. Each entry is one snapshot and has its name:
`2026-11-20.parquet`, or a folder `2026-11-20/` of Parquet files, tars, or images. It counts once nothing in
it was written for a minute.
"""

import os
import time
from pathlib import Path

import dagster as dg

from dags.assets import snapshots
from dags.jobs import data
from pipelines.store.home import home_path

SNAPSHOTS_VARIABLE = "STRAIGHTSHOT_SNAPSHOTS"
SETTLED_SECONDS = 60.0  # without a write: an upload is taken to be complete
INTERVAL_SECONDS = 30


@dg.sensor(job=data, name="new_snapshots", minimum_interval_seconds=INTERVAL_SECONDS)
def new_snapshots(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    folder = Path(os.environ.get(SNAPSHOTS_VARIABLE) or home_path(None) / "snapshots")
    if not folder.is_dir():
        return dg.SkipReason(f"no folder at {folder}")
    known = set(context.instance.get_dynamic_partitions(snapshots.name or ""))
    settled = settled_snapshots(folder, time.time())
    new = {name: uri for name, uri in settled.items() if name not in known}
    if not new:
        return dg.SkipReason(f"nothing new in {folder}")
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=name,
                partition_key=name,
                run_config={"resources": {"straightshot": {"config": {"corpus": uri, "snapshot": name}}}},
                tags={"straightshot/started_by": "sensor"},
            )
            for name, uri in new.items()
        ],
        dynamic_partitions_requests=[snapshots.build_add_request(sorted(new))],
    )


def settled_snapshots(folder: Path, now: float) -> dict[str, str]:
    """Name -> corpus URI of every entry that has not been written to for SETTLED_SECONDS."""
    settled = {}
    for path in sorted(folder.iterdir()):
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        kind = _kind(files)
        if kind is None or path.name.startswith("."):
            continue
        if now - max(file.stat().st_mtime for file in files) >= SETTLED_SECONDS:
            settled[path.stem if path.is_file() else path.name] = f"{kind}:{path}"
    return settled


def _kind(files: list[Path]) -> str | None:
    """How a snapshot's files are read; None where there is nothing to read."""
    suffixes = {file.suffix.lower() for file in files}
    for suffix, kind in ((".parquet", "parquet"), (".tar", "webdataset")):
        if suffix in suffixes:
            return kind
    return "folder" if suffixes & {".jpg", ".jpeg", ".png", ".webp"} else None
