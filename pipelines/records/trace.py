"""A record's way through the DAG: by which rule it ended, or its captions, its tar and its models.

Of every snapshot that has it, through the newest outputs that it is in; read from the outputs alone, so the
corpus need not be there any more.
"""

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from components.corpus.schemas import SEARCHED, record_key
from components.shards.index import HOLDOUT, INDEX_NAME, TRAIN, Split, load_index
from pipelines.errors import ConfigError
from pipelines.retention.catalog import Catalog, Output, read_catalog
from pipelines.retention.roots import registries
from pipelines.retention.takedown import shards_of
from pipelines.stages.data.part_records import (
    CAPTIONED_FOLDER,
    DROPPED_FOLDER,
    FILTERED_FOLDER,
    REJECTS_FOLDER,
)
from pipelines.stages.fetch import FETCHED_FOLDER
from pipelines.store.outputs import fetch

KEY = re.compile(r"[0-9a-f]{32}")
FOLDERS = {"fetch": FETCHED_FOLDER, "filter": FILTERED_FOLDER, "recaption": CAPTIONED_FOLDER}
PURPOSES: dict[Split, str] = {TRAIN: "train on", HOLDOUT: "measure with"}
LATER = ("recaption", "shard")  # the data stages after filter, in their order
NOT_SHOWN = ("image", "key", "url", *SEARCHED, "stage", "reason", "detail")  # facts that are said already


@dataclass(frozen=True)
class Step:
    """What one stage made of the record: kept, rejected, or the tar that it lies in; and what it measured."""

    output: str  # stage/fingerprint
    fate: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trace:
    """One record of one snapshot. models: registered versions whose training read its tars, in words."""

    key: str
    url: str | None
    snapshot: str
    steps: tuple[Step, ...]
    models: tuple[str, ...]


def trace(home: Path, wanted: str, uri: str | None = None) -> list[Trace]:
    """Every record that `wanted` means: a key, a URL, or an image file's path, whatever its URL.

    Raises ConfigError where no output of the filter has it.
    """
    catalog = read_catalog(home)
    rows = _meant(wanted)
    found: dict[str, Output] = {}  # by key
    for output in (*catalog.of("filter"), *catalog.of("fetch")):  # of the latter, what did not come
        for key in rows(output):
            found.setdefault(key, output)
    if not found:
        raise ConfigError(
            f"no record '{wanted}' in any output of the filter or of fetch under {home}; give a key (32"
            " hex digits, as in the shards' file names and the rejects), its URL, or an image's file"
        )
    return [_traced(home, catalog, key, output, uri) for key, output in found.items()]


def _meant(wanted: str) -> Callable[[Output], set[str]]:
    """output of the filter -> the keys in it that are meant."""
    if KEY.fullmatch(wanted):
        return lambda output: {row["key"] for row in _rows(output, ("key", "=", wanted))}
    if not Path(wanted).is_file():
        return lambda output: {row["key"] for row in _rows(output, ("url", "=", wanted))}
    image = Path(wanted).read_bytes()
    sha256 = hashlib.sha256(image).hexdigest()

    def of_image(output: Output) -> set[str]:
        kept = {row["key"] for row in _read(output, FILTERED_FOLDER, ["key"], ("sha256", "=", sha256))}
        # Of a reject only the key is known, which is a function of the image, the snapshot and the URL.
        rejects = _read(output, REJECTS_FOLDER, ["key", "url"])
        snapshot = output.receipt.snapshot
        return kept | {
            row["key"] for row in rejects if row["key"] == record_key(image, f"{snapshot}:{row['url'] or ''}")
        }

    return of_image


def _traced(home: Path, catalog: Catalog, key: str, filtered: Output, uri: str | None) -> Trace:
    steps: list[Step] = []
    known: dict[str, Any] = {}
    url: str | None = None
    models: tuple[str, ...] = ()
    for output in _on_its_way(catalog, filtered):
        stage = output.receipt.stage
        step = _in_tar(output, key) if stage == "shard" else _in_tables(output, key, FOLDERS[stage])
        if step is None:
            break  # withdrawn since
        url = step.facts.get("url", url)
        new = {n: value for n, value in step.facts.items() if n not in known or known[n] != value}
        known |= new
        steps.append(Step(step.output, step.fate, {n: v for n, v in new.items() if n not in NOT_SHOWN}))
        if stage == "shard":
            models = tuple(_models(home, catalog, output, uri))
    return Trace(key, url, filtered.receipt.snapshot, tuple(steps), models)


def _on_its_way(catalog: Catalog, filtered: Output) -> Iterator[Output]:
    """The output, and of each later data stage the newest that was made from the one before."""
    at: Output | None = filtered
    for stage in LATER:
        if at is None:
            return
        yield at
        made_from = at.path
        at = next((o for o in catalog.of(stage) if made_from in {i.path for i in catalog.inputs(o)}), None)
    if at is not None:
        yield at


def _in_tables(output: Output, key: str, folder: str) -> Step | None:
    for row in _read(output, folder, None, ("key", "=", key)):
        for dropped in _read(output, DROPPED_FOLDER, None, ("key", "=", key)):
            return Step(output.name, f"kept without its alt text: {_why(dropped)}", row)
        return Step(output.name, "kept", row)
    for row in _read(output, REJECTS_FOLDER, None, ("key", "=", key)):
        return Step(output.name, f"rejected: {_why(row)}", row)
    return None


def _why(row: dict[str, Any]) -> str:
    return f"{row['reason']} ({row['detail']})" if row["detail"] else str(row["reason"])


def _in_tar(output: Output, key: str) -> Step | None:
    """The tar that holds the record, found by its members' names; no image is read."""
    fetch(output.path, output.receipt)
    for shard in load_index(output.path / INDEX_NAME).shards:
        with tarfile.open(output.path / shard.name) as tar:
            if any(name.partition(".")[0] == key for name in tar.getnames()):
                return Step(output.name, f"in {shard.name}, to {PURPOSES[shard.split]}", {})
    return None


def _models(home: Path, catalog: Catalog, shard: Output, uri: str | None) -> Iterator[str]:
    for registry in registries(home, uri):
        with registry.tracker.answering():
            for version in registry.versions():
                of = shards_of(version, catalog) if version.digest is not None else None
                if any(output.path == shard.path for output in of or ()):
                    roles = f" ({', '.join(version.aliases)})" if version.aliases else ""
                    yield f"version {version.version} of '{version.name}'{roles}"


def _rows(output: Output, where: tuple[str, str, str]) -> Iterator[dict[str, Any]]:
    """The keys of the kept and rejected records of a filter's output where a column has a value."""
    for folder in (FILTERED_FOLDER, REJECTS_FOLDER):
        yield from _read(output, folder, ["key"], where)


def _read(
    output: Output, folder: str, columns: Iterable[str] | None, where: tuple[str, str, str] | None = None
) -> Iterator[dict[str, Any]]:
    fetch(output.path, output.receipt)
    paths = sorted(entry.path for entry in output.receipt.files if entry.path.startswith(f"{folder}/"))
    wanted = None if columns is None else list(columns)
    for path in paths:
        table = pq.read_table(output.path / path, columns=wanted, filters=[where] if where else None)
        yield from table.to_pylist()
