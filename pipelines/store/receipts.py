"""Receipts: what a finished part and a finished stage leave behind, and how files get there whole.

A file is written as `x.tmp-<run>`, flushed, hashed, renamed, and its folder flushed; the part's receipt
comes next, the stage's receipt last. Readers take file names only from receipts, so a file that no
receipt names does not exist for them.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipelines.store.faults import fault_point

RECEIPT = "receipt.json"
PARTS = "parts"


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
    info: dict[str, Any]  # what the stage wants shown or handed on: run ids, speeds, versions
    files: tuple[FileEntry, ...]
    digest: str  # of the files' content
    seconds: float
    peak_rss_mb: float  # of the largest single process
    finished_at: str  # UTC, ISO 8601


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(files: Iterable[FileEntry]) -> str:
    """The digest of an output's content: names and hashes, in name order; without the files of timings."""
    digest = hashlib.sha256()
    for entry in sorted((entry for entry in files if not entry.timing), key=lambda entry: entry.path):
        digest.update(f"{entry.path}\0{entry.sha256}\n".encode())
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def commit_file(path: Path, write: Callable[[Path], object], *, run_id: str, point: str) -> tuple[int, str]:
    """Have `write` fill a temporary file, then rename it to `path`; returns its bytes and sha256.

    Whoever reads `path` sees the old file or the new one, whole, also after a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{run_id}")
    write(temporary)
    with temporary.open("rb+") as file:
        file.flush()
        os.fsync(file.fileno())
    size, sha256 = temporary.stat().st_size, sha256_file(temporary)
    fault_point(f"{point}.before_rename")
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return size, sha256


@dataclass(frozen=True)
class Parts:
    """The parts of one output. Picklable: workers get it and write through it.

    root: the output's folder. stage: for fault points. run_id: marks this run's temporaries.
    """

    root: Path
    stage: str
    run_id: str
    folder: str = ""  # a sub-folder of root for intermediate parts
    _base: Path = field(init=False, repr=False, compare=False, default=Path())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_base", self.root / self.folder if self.folder else self.root)

    def within(self, folder: str) -> "Parts":
        """The same, for intermediate parts under `folder`."""
        return Parts(self.root, self.stage, self.run_id, folder)

    def path(self, name: str) -> Path:
        return self._base / name

    def write(
        self,
        name: str,
        files: Mapping[str, Callable[[Path], object]],
        *,
        counts: Counts | None = None,
        reasons: Mapping[str, int] | None = None,
        info: Mapping[str, Any] | None = None,
        timings: Collection[str] = (),
    ) -> PartReceipt:
        """Commit the part's files (relative path -> writer), then its receipt `parts/<name>.json`.

        timings: those of the files that are no part of the output's content digest.
        """
        entries = []
        for relative, write in files.items():
            size, sha256 = commit_file(
                self.path(relative), write, run_id=self.run_id, point=f"{self.stage}.part"
            )
            entries.append(FileEntry(path=relative, bytes=size, sha256=sha256, timing=relative in timings))
        receipt = PartReceipt(
            name=name,
            files=tuple(entries),
            counts=counts or Counts(),
            reasons=dict(reasons or {}),
            info=dict(info or {}),
        )
        receipt.counts.check(f"{self.stage} part {name}")
        text = receipt.model_dump_json(by_alias=True)
        fault_point(f"{self.stage}.part.before_receipt")
        commit_file(
            self.path(f"{PARTS}/{name}.json"),
            lambda path: path.write_text(text),
            run_id=self.run_id,
            point=f"{self.stage}.part_receipt",
        )
        return receipt

    def finished(self, name: str) -> PartReceipt | None:
        """The part's receipt if it is there and its files verify; else None (it is to be done again)."""
        path = self.path(f"{PARTS}/{name}.json")
        if not path.exists():
            return None
        try:
            receipt = PartReceipt.model_validate_json(path.read_bytes())
        except ValueError:  # torn by a power cut or written by another version: as if it were not there
            return None
        return receipt if files_verify(self._base, receipt.files) else None


def files_verify(base: Path, files: Iterable[FileEntry]) -> bool:
    """Whether every file is there with the size and hash that its receipt lists."""
    for entry in files:
        path = base / entry.path
        if not path.is_file() or path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
            return False
    return True


def total(parts: Iterable[PartReceipt]) -> tuple[Counts, dict[str, int], tuple[FileEntry, ...]]:
    """Counts, rejects by reason and files of all parts together."""
    counts, reasons, files = Counts(), Counter[str](), list[FileEntry]()
    for part in parts:
        counts += part.counts
        reasons.update(part.reasons)
        files.extend(part.files)
    return counts, dict(sorted(reasons.items())), tuple(files)
