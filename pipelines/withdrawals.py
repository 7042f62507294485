"""Takedowns: which records were withdrawn from a HOME, and which of them a corpus holds.

HOME/withdrawn/<key or sha256>.json     one withdrawal each, written once and never removed
HOME/cache/records/<...>.parquet        key and sha256 of every record of a corpus, to look them up in

The keys that a corpus holds enter the fingerprint of the filter (`Input.withdrawn`), which rejects them with
the reason `withdrawn`: no later version of the shards has them. A withdrawal that touches nothing in a corpus
changes none of its fingerprints. A record is meant by its key, and by its image's bytes wherever they come
again: in a copy, in a later snapshot.

A registered model that was trained on withdrawn records says so in a tag (registry/model_version.py).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components.durable import write_file
from components.errors import InputError
from pipelines.errors import ConfigError
from pipelines.stage import Input
from pipelines.store.mirror import store_at
from pipelines.store.outputs import fetch, readable_receipt
from pipelines.store.receipts import RECEIPT, json_digest
from pipelines.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "withdrawn"
RECORDS = "cache/records"
SUFFIX = ".json"


@dataclass(frozen=True)
class Withdrawal:
    """One takedown, of a record by its key or of every record whose image has these bytes, or both.

    at: UTC, ISO 8601. by: the user who gave the command.
    """

    key: str | None
    sha256: str | None
    reason: str = ""
    at: str = ""
    by: str = ""

    @property
    def name(self) -> str:
        name = self.key or self.sha256
        assert name is not None, "a withdrawal names a record or an image"
        return name

    @property
    def what(self) -> str:
        """What it takes down, in words."""
        return f"record {self.key}" if self.key else f"image with sha256 {self.sha256}"


def record_withdrawal(home: Path, withdrawal: Withdrawal) -> bool:
    """Keep it under HOME for good; False when it was withdrawn before, and that stands."""
    content = json.dumps(asdict(withdrawal), indent=1).encode()
    return store_at(home / FOLDER).put(f"{withdrawal.name}{SUFFIX}", content, if_match=None) is not None


def withdrawals(home: Path) -> tuple[Withdrawal, ...]:
    """Every withdrawal, by name. Raises ConfigError for one that cannot be read: none may be lost."""
    store = store_at(home / FOLDER)
    return tuple(_read(home, store, key) for key in store.keys("") if key.endswith(SUFFIX))


def less_withdrawn(corpus: Input, snapshot: str, home: Path) -> Input:
    """The corpus with the keys of what was withdrawn from it. Reads it once, when first something was."""
    listed = withdrawals(home)
    if not listed:
        return corpus
    table = _records(corpus, snapshot, home)
    return replace(corpus, withdrawn=tuple(sorted(touched(listed, table))))


def touched(listed: tuple[Withdrawal, ...], records: "pa.Table") -> set[str]:
    """The keys in a table of records (columns key, sha256) that the withdrawals mean."""
    import pyarrow as pa
    import pyarrow.compute as pc

    by_key = pa.array([w.key for w in listed if w.key], pa.string())
    by_image = pa.array([w.sha256 for w in listed if w.sha256], pa.string())
    meant = pc.or_(
        pc.is_in(records["key"], value_set=by_key), pc.is_in(records["sha256"], value_set=by_image)
    )
    return set(records.filter(meant)["key"].to_pylist())


def _records(corpus: Input, snapshot: str, home: Path) -> "pa.Table":
    """key and sha256 of every record of a corpus; of its filtered records where it is not there any more."""
    import pyarrow.parquet as pq

    path = home / RECORDS / f"{json_digest([snapshot, corpus.digest])[:32]}.parquet"
    with suppress(OSError, ValueError):  # not there, or damaged: read the corpus again
        return pq.read_table(path)
    try:
        listed = records_of_output(corpus) if corpus.receipt is not None else _scan(corpus, snapshot)
        table = records_table(listed)
    except (InputError, OSError):
        return records_table(_filtered(corpus, snapshot, home))
    with suppress(OSError):  # somebody else's HOME, a full disk: read again at the next look
        write_file(path, partial(pq.write_table, table))
    return table


def _scan(corpus: Input, snapshot: str) -> Iterator[tuple[str, str | None]]:
    from components.corpus.readers import open_corpus, read_stream
    from pipelines.stages.filter import key_of

    for stream in open_corpus(corpus.location).streams:
        for _, records in read_stream(stream):
            for record in records:
                sha256 = hashlib.sha256(record.image).hexdigest() if record.image else None
                yield key_of(record, snapshot), sha256


def _filtered(corpus: Input, snapshot: str, home: Path) -> Iterator[tuple[str, str | None]]:
    """The same of a corpus that cannot be read, from what the filter kept and rejected of it."""
    from pipelines.stages.filter import NAME

    for path in sorted((home / NAME).glob(f"*/{RECEIPT}")):
        receipt = readable_receipt(path.parent)
        if receipt and receipt.snapshot == snapshot and receipt.inputs.get(corpus.name) == [corpus.digest]:
            yield from records_of_output(Input(NAME, str(path.parent), receipt.digest, receipt))


def records_of_output(output: Input) -> Iterator[tuple[str, str | None]]:
    """key and sha256 of the records in an output of fetch, or of the filter; of the latter with its rejects,
    whose sha256 is known of those alone that the report shows. Of recaption, of those alone.
    """
    import pyarrow.parquet as pq

    from pipelines.stages.data.part_records import EXAMPLES_FOLDER, FILTERED_FOLDER, REJECTS_FOLDER
    from pipelines.stages.fetch import FETCHED_FOLDER

    if output.receipt is not None:
        fetch(output.path, output.receipt)
    folders = (FETCHED_FOLDER, FILTERED_FOLDER, EXAMPLES_FOLDER)
    for path in [path for folder in folders for path in output.files(f"{folder}/")]:
        table = pq.read_table(path, columns=["key", "sha256"])
        yield from zip(table["key"].to_pylist(), table["sha256"].to_pylist(), strict=True)
    for path in output.files(f"{REJECTS_FOLDER}/") if output.name == "filter" else ():
        for key in pq.read_table(path, columns=["key"])["key"].to_pylist():
            yield key, None


def records_table(rows: Iterable[tuple[str, str | None]]) -> "pa.Table":
    """Rows of a record's key and its image's sha256 as a table of the columns `key` and `sha256`."""
    import pyarrow as pa

    keys, digests = [], []
    for key, sha256 in rows:
        keys.append(key)
        digests.append(sha256)
    return pa.table({"key": pa.array(keys, pa.string()), "sha256": pa.array(digests, pa.string())})


def _read(home: Path, store: Store, key: str) -> Withdrawal:
    stored = store.read(key)
    try:
        values = json.loads(stored.content) if stored else {}
        withdrawal = Withdrawal(**values)
        if withdrawal.name != key.removesuffix(SUFFIX):
            raise ValueError("it names another record than its file")
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"{home / FOLDER / key}: damaged, not a withdrawal ({error}); withdraw"
            f" {key.removesuffix(SUFFIX)} again after removing the file"
        ) from error
    return withdrawal
