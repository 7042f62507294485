"""`straightshot withdraw`: take records down, mark the models trained on them, say which outputs hold them.

What is withdrawn is recorded first, then the models are marked: killed between the two, the same command (or
`straightshot withdraw` alone) goes on. What the outputs made before hold stays until it is purged.
"""

import hashlib
import re
import tarfile
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from components.captioning.answers import Answers
from components.durable import remove
from components.shards.index import HOLDOUT, INDEX_NAME, TRAIN, Split, load_index
from pipelines.errors import ConfigError
from pipelines.registry.model_card import CARD_FILE, description_of, with_withdrawals
from pipelines.registry.model_registry import Registry
from pipelines.registry.model_version import WITHDRAWN_TAG, ModelVersion, WithdrawnRecords
from pipelines.report import PAGE
from pipelines.retention.catalog import Catalog, Output, read_catalog
from pipelines.retention.collection import remove_output
from pipelines.retention.roots import distilled_as, registries
from pipelines.stage import Input
from pipelines.stages.data.part_records import CAPTIONED_FOLDER, EXAMPLES_FOLDER, FILTERED_FOLDER
from pipelines.stages.fetch import FETCHED_FOLDER
from pipelines.stages.recaption import ANSWERS
from pipelines.store.faults import fault_point
from pipelines.store.locks import Owner
from pipelines.store.outputs import fetch
from pipelines.store.provenance import now, user_and_host
from pipelines.withdrawals import (
    Withdrawal,
    record_withdrawal,
    records_of_output,
    records_table,
    touched,
    withdrawals,
)

if TYPE_CHECKING:
    import pyarrow as pa

KEY = re.compile(r"[0-9a-f]{32}")
COMMENT = "#"
FOLDERS = {
    "fetch": (FETCHED_FOLDER,),
    "filter": (FILTERED_FOLDER, EXAMPLES_FOLDER),
    "recaption": (CAPTIONED_FOLDER, EXAMPLES_FOLDER),
}


@dataclass(frozen=True)
class Holding:
    """An output with images or captions of withdrawn records, and of how many."""

    output: Output
    records: int


@dataclass(frozen=True)
class Marked:
    """A registered version and how many withdrawn records it was trained on; None where its shards or what
    lies between are gone, so that it cannot be told.
    """

    version: ModelVersion
    records: int | None


@dataclass(frozen=True)
class Takedown:
    """What was withdrawn so far, where it lies, and which models it trained. new: withdrawn only now."""

    new: tuple[Withdrawal, ...]
    all: tuple[Withdrawal, ...]
    holdings: tuple[Holding, ...]
    marked: tuple[Marked, ...]


def requested(keys: Iterable[str], file: Path | None, reason: str = "") -> list[Withdrawal]:
    """The withdrawals that a command line asks for. Raises ConfigError for what is no key or cannot be read.

    file: text of keys, one a line (blank lines and those that start with # count nothing); anything that is
    not UTF-8 text is an image, and stands for every record with exactly these bytes.
    """
    at, by, listed = now(), user_and_host(), [(key, f"--key {key}") for key in keys]
    images = []
    if file is not None:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"--file {file}: {error.strerror or error}; give a file that is there"
            ) from None
        try:
            lines = content.decode().splitlines() if b"\0" not in content else None
        except UnicodeDecodeError:
            lines = None
        if lines is None:
            images.append(hashlib.sha256(content).hexdigest())
        else:
            stripped = [(line.strip(), f"--file {file}, line {n}") for n, line in enumerate(lines, start=1)]
            listed += [(line, where) for line, where in stripped if line and not line.startswith(COMMENT)]
            if not listed:
                raise ConfigError(f"--file {file}: it names no key; write one a line, or give an image")
    for key, where in listed:
        if not KEY.fullmatch(key):
            raise ConfigError(
                f"{where}: '{key[:40]}' is no key (32 hex digits, as in the shards' file names and the"
                " rejects); for an image give its file"
            )
    of_keys = [Withdrawal(key, None, reason, at, by) for key in dict.fromkeys(key for key, _ in listed)]
    return [*of_keys, *(Withdrawal(None, sha256, reason, at, by) for sha256 in images)]


def take_down(
    home: Path, wanted: list[Withdrawal], *, unseen: bool = False, uri: str | None = None
) -> Takedown:
    """Record the withdrawals and mark the models; what was withdrawn before is looked at again.

    unseen: also what no output of the filter under HOME has. Raises ConfigError for that otherwise, before
    anything is recorded.
    """
    catalog = read_catalog(home)
    records = records_table(_known_records(catalog))
    before = {withdrawal.name for withdrawal in withdrawals(home)}
    for withdrawal in wanted:
        if not (unseen or withdrawal.name in before or touched((withdrawal,), records)):
            raise ConfigError(
                f"no {withdrawal.what} in any filter output or fetched corpus under {home}; check it, or"
                " withdraw it for what comes later with --unseen"
            )
    complete = [_with_image(withdrawal, records) for withdrawal in wanted]
    new = tuple(withdrawal for withdrawal in complete if record_withdrawal(home, withdrawal))
    fault_point("withdraw.before_mark")
    listed = withdrawals(home)
    keys = touched(listed, records)
    if not keys:
        return Takedown(new, listed, (), ())
    holdings = tuple(_holdings(catalog, keys))
    return Takedown(new, listed, holdings, tuple(_mark_models(home, catalog, keys, uri)))


def purge(home: Path, takedown: Takedown) -> list[tuple[Holding, str | None]]:
    """Remove the outputs that hold withdrawn records, whoever needs them; each with why it stays, if so.

    What a captioning server said of their images goes, too, and so does the page, which shows some images.
    """
    remove(home / PAGE)
    Answers(home / ANSWERS).forget(w.sha256 for w in takedown.all if w.sha256 is not None)
    me = Owner.me(uuid.uuid4().hex[:8], "withdraw --purge")
    return [(holding, remove_output(holding.output.path, me)) for holding in takedown.holdings]


def _known_records(catalog: Catalog) -> Iterator[tuple[str, str | None]]:
    for output in (*catalog.of("filter"), *catalog.of("fetch"), *catalog.of("recaption")):
        yield from records_of_output(_as_input(output))


def _as_input(output: Output) -> Input:
    receipt = output.receipt
    return Input(receipt.stage, str(output.path), receipt.digest, receipt)


def _with_image(withdrawal: Withdrawal, records: "pa.Table") -> Withdrawal:
    """The withdrawal of a record with its image's sha256, where it is known: its copies are meant, too."""
    if withdrawal.key is None:
        return withdrawal
    import pyarrow.compute as pc

    known = records.filter(pc.equal(records["key"], withdrawal.key))["sha256"].drop_null()
    return replace(withdrawal, sha256=known[0].as_py()) if len(known) else withdrawal


def _holdings(catalog: Catalog, keys: set[str]) -> Iterator[Holding]:
    """The outputs with images or captions of these records, in the order of the stages."""
    for stage, folders in FOLDERS.items():
        for output in catalog.of(stage):
            if records := len(set().union(*(_parquet_keys(output, f) for f in folders)) & keys):
                yield Holding(output, records)
    for output in catalog.of("shard"):
        if records := len(_tar_keys(output, (TRAIN, HOLDOUT)) & keys):
            yield Holding(output, records)


def _mark_models(home: Path, catalog: Catalog, keys: set[str], uri: str | None) -> Iterator[Marked]:
    """Set the tag of every version that was trained on some of the records, or cannot be known not to be."""
    trained = {output.path: _tar_keys(output, (TRAIN,)) & keys for output in catalog.of("shard")}
    for registry in registries(home, uri):
        with registry.tracker.answering():
            for version in registry.versions():
                if version.digest is None:  # not registered by a run
                    continue
                shards = shards_of(version, catalog)
                if shards is None:
                    yield Marked(version, None)
                    continue
                count = len(set().union(*(trained[output.path] for output in shards)))
                if not count:
                    continue
                if version.withdrawn is None or version.withdrawn.records < count:
                    _mark(registry, version, WithdrawnRecords(count, now()[:10]))
                yield Marked(version, count)


def _mark(registry: Registry, version: ModelVersion, withdrawn: WithdrawnRecords) -> None:
    """Have the version and its card on MLflow's page say it."""
    card = registry.logged_text(version, CARD_FILE) or ""
    registry.set_description(version, description_of(with_withdrawals(card, withdrawn)))
    registry.describe(version, {WITHDRAWN_TAG: withdrawn.to_tag()})


def shards_of(version: ModelVersion, catalog: Catalog) -> list[Output] | None:
    """The shards that a registered model was trained on; None where receipts do not lead to all of them."""
    for distilled in distilled_as(version, catalog):
        upstream = [output for output, _ in catalog.upstream([distilled])]
        shards = [output for output in upstream if output.receipt.stage == "shard"]
        digests = {output.receipt.digest for output in shards}
        trains = [output.receipt for output in upstream if output.receipt.stage == "train"]
        if trains and all(digests.issuperset(receipt.inputs["shard"]) for receipt in trains):
            return shards
    return None


def _parquet_keys(output: Output, folder: str) -> set[str]:
    import pyarrow.parquet as pq

    fetch(output.path, output.receipt)
    paths = _as_input(output).files(f"{folder}/")
    return {key for path in paths for key in pq.read_table(path, columns=["key"])["key"].to_pylist()}


def _tar_keys(output: Output, splits: tuple[Split, ...]) -> set[str]:
    """The keys in the tars, by their members' names; no image is read."""
    fetch(output.path, output.receipt)
    index = load_index(output.path / INDEX_NAME)
    keys: set[str] = set()
    for shard in (shard for split in splits for shard in index.split(split)):
        with tarfile.open(output.path / shard.name) as tar:
            keys.update(name.partition(".")[0] for name in tar.getnames())
    return keys
