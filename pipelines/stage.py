"""The stage contract: config, fingerprint, receipt, commit, resume.

A stage is a frozen config, an integer version and one function from inputs to an output folder.
Everything else is here and the same for all: the fingerprint says what the output depends on, the output
lives in HOME/<stage>/<fingerprint>/ and never changes once its receipt is there. Same fingerprint: nothing
to do.
"""

import hashlib
import importlib.metadata
import platform
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import psutil
from pydantic import BaseModel, ConfigDict

from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.store.faults import fault_point
from pipelines.store.locks import lock
from pipelines.store.receipts import (
    PARTS,
    RECEIPT,
    Counts,
    FileEntry,
    PartReceipt,
    Parts,
    Receipt,
    canonical_json,
    commit_file,
    content_digest,
    files_verify,
    sha256_file,
    total,
)

FINGERPRINT_DIGITS = 16  # hex digits of the sha256: 64 bits tell outputs apart, and paths stay readable
FAILED = "failed.json"
SCRATCH = "scratch"
LIBRARIES = (
    "torch",
    "ray",
    "mlflow",
    "dagster",
    "webdataset",
    "accelerate",
    "transformers",
    "open-clip-torch",
)


class StageConfig(BaseModel):
    """Base of every stage's config: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    # Fields that say how the work is done, and change nothing about the output (but for rounding).
    NOT_IN_FINGERPRINT: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class Input:
    """One finished output that a stage reads: where it lies and the digest of its content.

    For the corpus, `location` is its URI and there is no receipt.
    """

    name: str
    location: str
    digest: str
    receipt: Receipt | None = None

    @property
    def path(self) -> Path:
        return Path(self.location)

    def files(self, prefix: str) -> list[Path]:
        """Paths of the files under `prefix` that the receipt lists, in name order."""
        assert self.receipt is not None, f"{self.name} has no receipt"
        return [
            self.path / e.path
            for e in sorted(self.receipt.files, key=lambda e: e.path)
            if e.path.startswith(prefix)
        ]


@dataclass
class Work:
    """What a stage's function gets: its config and inputs, the output folder, the engine, the progress.

    `done` collects what goes into the receipt besides the parts that the function returns.
    """

    stage: str
    snapshot: str
    config: Any
    inputs: Mapping[str, tuple[Input, ...]]
    out: Path
    home: Path
    fingerprint: str
    run_id: str
    engine: Engine
    progress: Progress
    tracking_uri: str | None = None
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> Parts:
        return Parts(self.out, self.stage, self.run_id)

    @property
    def scratch(self) -> Path:
        """For what only a resume needs (checkpoints, intermediate parts); gone once the receipt is there."""
        return self.out / SCRATCH

    def input(self, name: str) -> Input:
        """The single input of that name."""
        (only,) = self.inputs[name]
        return only

    def commit(self, relative: str, write: Callable[[Path], object]) -> FileEntry:
        """Write one file of the output whole (see receipts.commit_file)."""
        point = f"{self.stage}.part"
        size, sha256 = commit_file(self.out / relative, write, run_id=self.run_id, point=point)
        return FileEntry(path=relative, bytes=size, sha256=sha256)

    def adopt(self, folder: str, *, name: str | None = None, counts: Counts | None = None) -> PartReceipt:
        """A part made of the files that already lie, whole, under `folder` (a saved model)."""
        paths = sorted(p for p in (self.out / folder).rglob("*") if p.is_file())
        entries = tuple(
            FileEntry(path=p.relative_to(self.out).as_posix(), bytes=p.stat().st_size, sha256=sha256_file(p))
            for p in paths
        )
        return PartReceipt(name=name or folder, files=entries, counts=counts or Counts())

    @contextmanager
    def folder(self, relative: str) -> Iterator[Path]:
        """Write a whole folder (a saved model) beside its place, then rename it there."""
        final = self.out / relative
        temporary = final.with_name(f"{final.name}.tmp-{self.run_id}")
        temporary.mkdir(parents=True)
        yield temporary
        fault_point(f"{self.stage}.folder.before_rename")
        if final.exists():
            shutil.rmtree(final)
        temporary.replace(final)


@dataclass(frozen=True)
class Stage:
    """A stage: its name, the version of its code, its config type, what it reads, and its function."""

    name: str
    version: int
    config_type: type[StageConfig]
    inputs: tuple[str, ...]
    run: Callable[[Work], Iterable[PartReceipt]]


def fingerprint(
    stage: Stage, snapshot: str, config: StageConfig, inputs: Mapping[str, Iterable[Input]]
) -> str:
    """sha256 over stage, version, snapshot, canonical config and the inputs' content digests."""
    value = {
        "stage": stage.name,
        "version": stage.version,
        "snapshot": snapshot,
        "config": config.model_dump(mode="json", exclude=set(config.NOT_IN_FINGERPRINT)),
        "inputs": {name: [i.digest for i in given] for name, given in inputs.items()},
    }
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:FINGERPRINT_DIGITS]


def load_receipt(out: Path, *, verify: bool = True) -> Receipt | None:
    """The receipt of a complete output; None when there is none, or its files do not verify."""
    path = out / RECEIPT
    if not path.exists():
        return None
    try:
        receipt = Receipt.model_validate_json(path.read_bytes())
    except ValueError:  # torn by a power cut or written by another version: as if it were not there
        return None
    if receipt.fingerprint != out.name:
        return None
    if verify and not files_verify(out, receipt.files):
        return None
    return receipt


def run_stage(
    stage: Stage,
    config: StageConfig,
    inputs: Mapping[str, tuple[Input, ...]],
    *,
    home: Path,
    snapshot: str,
    engine: Engine,
    progress: Progress,
    tracking_uri: str | None = None,
    force: bool = False,
) -> Receipt:
    """Make the stage's output, or find it made. Resume is calling this again.

    Raises StageBusy if another run owns the output; whatever the stage raises leaves `failed.json`.
    """
    mark = fingerprint(stage, snapshot, config, inputs)
    out, run_id = home / stage.name / mark, uuid.uuid4().hex[:8]
    with lock(home / stage.name / f"{mark}.lock", run_id, f"{stage.name} {mark}"):
        if force and out.exists():
            shutil.rmtree(out)
        elif (receipt := load_receipt(out)) is not None:
            shutil.rmtree(out / SCRATCH, ignore_errors=True)
            return receipt
        out.mkdir(parents=True, exist_ok=True)
        _discard_damaged(out)
        (out / FAILED).unlink(missing_ok=True)
        _sweep(out)
        work = Work(
            stage=stage.name,
            snapshot=snapshot,
            config=config,
            inputs=inputs,
            out=out,
            home=home,
            fingerprint=mark,
            run_id=run_id,
            engine=engine,
            progress=progress,
            tracking_uri=tracking_uri,
        )
        return _make(stage, work)


def _make(stage: Stage, work: Work) -> Receipt:
    """Run the stage's function and write the receipt, or `failed.json` if it raised."""
    started = time.perf_counter()
    try:
        with _peak_memory() as peak:
            parts = list(stage.run(work))
    except Exception as error:  # raised again; an interrupt is no failure
        text = canonical_json({"error": f"{type(error).__name__}: {error}", "at": _now()})
        with suppress(OSError):  # no space, perhaps: the stage's own error is the one to show
            (work.out / FAILED).write_text(text)
        raise
    counts, reasons, files = total(parts)
    counts.check(stage.name)
    receipt = Receipt(
        stage=stage.name,
        version=stage.version,
        snapshot=work.snapshot,
        fingerprint=work.fingerprint,
        config=work.config.model_dump(mode="json"),
        inputs={name: [i.digest for i in given] for name, given in work.inputs.items()},
        input_fingerprints={
            name: [i.receipt.fingerprint if i.receipt else i.digest for i in given]
            for name, given in work.inputs.items()
        },
        libraries=library_versions(),
        counts=counts,
        reasons=reasons,
        info=work.info,
        files=files,
        digest=content_digest(files),
        seconds=round(time.perf_counter() - started, 3),
        peak_rss_mb=round(peak[0] / 2**20, 1),
        finished_at=_now(),
    )
    text = receipt.model_dump_json(by_alias=True, indent=1)
    commit_file(
        work.out / RECEIPT,
        lambda path: path.write_text(text),
        run_id=work.run_id,
        point=f"{stage.name}.receipt",
    )
    shutil.rmtree(work.scratch, ignore_errors=True)
    return receipt


def _discard_damaged(out: Path) -> None:
    """Remove a receipt whose files do not verify, and what of them no part receipt guards: a saved model is
    taken for whole where its folder stands, so a damaged one goes with all its files.
    """
    try:
        receipt = Receipt.model_validate_json((out / RECEIPT).read_bytes())
    except (FileNotFoundError, ValueError):
        (out / RECEIPT).unlink(missing_ok=True)
        return
    guarded: set[str] = set()
    for path in (out / PARTS).glob("*.json"):
        with suppress(ValueError):
            part = PartReceipt.model_validate_json(path.read_bytes())
            guarded.update(entry.path for entry in part.files)
    for entry in receipt.files:
        if entry.path not in guarded and not files_verify(out, [entry]):
            top = out / Path(entry.path).parts[0]
            shutil.rmtree(top) if top.is_dir() else top.unlink(missing_ok=True)
    (out / RECEIPT).unlink(missing_ok=True)


def _sweep(out: Path) -> None:
    """Remove what killed runs left half-written; the lock is ours, so nobody is writing it."""
    for stale in sorted(out.rglob("*.tmp-*"), reverse=True):
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)


@contextmanager
def _peak_memory(interval: float = 0.5) -> Iterator[list[int]]:
    """Sample the resident bytes of this process and its children; the largest single one is kept."""
    peak, done, me = [0], threading.Event(), psutil.Process()

    def sample() -> None:
        while True:
            for process in [me, *me.children(recursive=True)]:
                try:
                    peak[0] = max(peak[0], process.memory_info().rss)
                except psutil.Error:
                    continue  # it ended between the listing and the look
            if done.wait(interval):
                return

    thread = threading.Thread(target=sample, name="peak-memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


@cache
def library_versions() -> dict[str, str]:
    """Versions of what the outputs depend on; a library that is not installed is left out."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")  # two runs of a tiny stage differ
