"""Receipts: what a finished part and a finished stage leave behind.

The files come first, each whole; the part's receipt next, the stage's receipt last. Readers take file names
only from receipts, so a file that no receipt names does not exist for them. A receipt carries the hash of its
own content, so that an edited count is found.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from components.durable import Written, nothing, sha256_file
from pipelines.store.store import Store

RECEIPT = "receipt.json"
CLAIM = b"claim "  # begins what stands for a receipt in a bucket while a run makes the output
PARTS = "parts"
MODEL = "model"  # the folder of the model in an output of train or distill
OWN_HASH = "sha256"  # the field of a receipt with the hash of the others


class ReceiptError(ValueError):
    """A receipt that does not count; the message says why: torn, edited, or of another version."""


class Counts(BaseModel):
    """Records in, and how each of them ended: `in = kept + rejected + errored`."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)
    in_: int = Field(default=0, alias="in", ge=0)
    kept: int = Field(default=0, ge=0)
    rejected: int = Field(default=0, ge=0)
    errored: int = Field(default=0, ge=0)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts.model_validate({k: v + other.as_dict()[k] for k, v in self.as_dict().items()})

    def as_dict(self) -> dict[str, int]:
        return self.model_dump(by_alias=True)

    def check(self, where: str) -> None:
        """Assert that every record ended exactly once."""
        ended = self.kept + self.rejected + self.errored
        assert self.in_ == ended, f"{where}: {self.in_} records in, {ended} accounted for: {self.as_dict()}"


class FileEntry(BaseModel):
    """One file of an output: path relative to the output's folder, size, sha256.

    timing: it holds seconds, which no two runs share, so it is no part of the output's content digest.
    """

    model_config = ConfigDict(frozen=True)
    path: str
    bytes: int
    sha256: str
    timing: bool = False


class PartReceipt(BaseModel):
    """What one finished part holds."""

    model_config = ConfigDict(frozen=True)
    name: str
    files: tuple[FileEntry, ...]
    counts: Counts = Counts()
    reasons: dict[str, int] = {}
    info: dict[str, Any] = {}
    sha256: str = ""  # of the fields above; set when it is written


class Receipt(BaseModel):
    """What a finished stage holds; its presence, with hashes that verify, is what 'complete' means."""

    model_config = ConfigDict(frozen=True)
    stage: str
    version: int
    snapshot: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, list[str]]  # input stage -> digests of its outputs
    input_fingerprints: dict[str, list[str]]
    libraries: dict[str, str]
    counts: Counts
    reasons: dict[str, int]  # rejects by reason
    info: dict[str, Any]  # for the reader or the next stage: run ids, speeds, versions
    files: tuple[FileEntry, ...]
    digest: str  # of the files' content
    seconds: float
    startup_seconds: float = 0.0  # of them, spent on starting Ray, pools and workers: they grow with no size
    peak_rss_mb: float  # of the largest single process
    finished_at: str  # UTC, ISO 8601
    sha256: str = ""  # of the fields above; set when it is written

    def files_in(self, folder: str) -> list[FileEntry]:
        """The files under a folder of the output, their paths relative to that folder."""
        return [
            entry.model_copy(update={"path": entry.path.removeprefix(f"{folder}/")})
            for entry in self.files
            if entry.path.startswith(f"{folder}/")
        ]


AnyReceipt = TypeVar("AnyReceipt", Receipt, PartReceipt)


def write_receipt(
    store: Store, key: str, receipt: AnyReceipt, *, before_commit: Callable[[], None] = nothing
) -> AnyReceipt:
    """Put the receipt under `key` with its own hash; returned as it was written."""
    sealed, content = seal(receipt)
    store.write(key, lambda path: path.write_bytes(content), before_commit=before_commit)
    return sealed


def seal(receipt: AnyReceipt) -> tuple[AnyReceipt, bytes]:
    """The receipt with its own hash, and the bytes that it is written as."""
    values = receipt.model_dump(mode="json", by_alias=True, exclude={OWN_HASH})
    sealed = receipt.model_copy(update={OWN_HASH: json_digest(values)})
    return sealed, sealed.model_dump_json(by_alias=True, indent=1).encode()


def read_receipt(store: Store, key: str, kind: type[AnyReceipt]) -> AnyReceipt | None:
    """The receipt under `key`, None when there is none. Raises ReceiptError for one that does not count."""
    stored = store.read(key)
    if stored is None or stored.content.startswith(CLAIM):
        return None
    return parse_receipt(stored.content, kind)


def parse_receipt(content: bytes, kind: type[AnyReceipt]) -> AnyReceipt:
    """The receipt that these bytes are. Raises ReceiptError saying what is wrong with them."""
    try:
        values = json.loads(content)
    except ValueError:
        raise ReceiptError("it is torn or damaged: not JSON") from None
    if not isinstance(values, dict):
        raise ReceiptError("it is damaged: not a receipt")
    stated = values.pop(OWN_HASH, "")
    if not stated:
        raise ReceiptError("it is damaged, or of an older version: it has no hash of its own")
    if json_digest(values) != stated:
        raise ReceiptError("it was edited: its content does not have the hash that it states")
    try:
        return kind.model_validate({**values, OWN_HASH: stated})
    except ValueError:
        raise ReceiptError("it is of another version: its fields are not this version's") from None


def json_digest(value: Any) -> str:
    """sha256 (hex) of a value as canonical JSON: a receipt without its own hash, a protocol, a config."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def file_entry(path: str, written: Written, *, timing: bool = False) -> FileEntry:
    """The entry of a file that was just written."""
    return FileEntry(path=path, bytes=written.bytes, sha256=written.sha256, timing=timing)


def content_digest(files: Iterable[FileEntry]) -> str:
    """The digest of an output's content: names and hashes, in name order; without the files of timings."""
    digest = hashlib.sha256()
    for entry in sorted((entry for entry in files if not entry.timing), key=lambda entry: entry.path):
        digest.update(f"{entry.path}\0{entry.sha256}\n".encode())
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def wrong_with(path: Path, entry: FileEntry) -> str:
    """What is wrong with the file that should be `entry`, in a few words; empty if it is as listed."""
    if not path.is_file():
        return "it is missing"
    if (size := path.stat().st_size) != entry.bytes:
        return f"it has {size:,} bytes, and its receipt lists {entry.bytes:,}"
    return "" if sha256_file(path) == entry.sha256 else "its content does not have the hash in its receipt"


def files_verify(base: Path, files: Iterable[FileEntry]) -> bool:
    """Whether every file is there with the size and hash that its receipt lists."""
    return not any(wrong_with(base / entry.path, entry) for entry in files)


def total(parts: Iterable[PartReceipt]) -> tuple[Counts, dict[str, int], tuple[FileEntry, ...]]:
    """Counts, rejects by reason and files of all parts together."""
    counts, reasons, files = Counts(), Counter[str](), list[FileEntry]()
    for part in parts:
        counts += part.counts
        reasons.update(part.reasons)
        files.extend(part.files)
    return counts, dict(sorted(reasons.items())), tuple(files)
