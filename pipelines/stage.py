"""The stage contract: config, fingerprint, receipt, commit, resume.

A stage is a frozen config, an integer version and one function from inputs to an output folder.
Everything else is here and the same for all: the fingerprint says what the output depends on, the output
lives in HOME/<stage>/<fingerprint>/ and never changes once its receipt is there. Same fingerprint: nothing
to do. How files get to HOME is the store's affair (pipelines/store).
"""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from components.durable import remove, sweep, write_folder
from pipelines.errors import StageBusy
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.store.commit import claim, commit
from pipelines.store.faults import fault_point
from pipelines.store.locks import Lease, Owner, exclusive, hold, reading
from pipelines.store.mirror import publish, store_at
from pipelines.store.outputs import (
    FAILED,
    SCRATCH,
    awaits_swap,
    discard_damaged,
    fetch,
    finish_swap,
    forced_folder,
    forget_verified,
    load_receipt,
    remember_verified,
    swap,
    write_failure,
)
from pipelines.store.parts import Parts
from pipelines.store.provenance import library_versions, now, peak_memory
from pipelines.store.receipts import (
    Counts,
    FileEntry,
    PartReceipt,
    Receipt,
    content_digest,
    file_entry,
    json_digest,
    sha256_file,
    total,
)

SOURCES = ("labelled", "corpus")  # inputs that are no stage's output: see sources.py
INIT, TEACHER = "init", "teacher"  # inputs of train and of distill where their configs name a model by that
MODELS = (INIT, TEACHER)
NO_OUTPUTS = (*SOURCES, *MODELS)
FINGERPRINT_DIGITS = 16  # hex digits of the sha256: 64 bits tell outputs apart, and paths stay readable


class StageConfig(BaseModel):
    """Base of every stage's config: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    # Fields that say how the work is done, and change nothing about the output (but for rounding), as
    # pydantic excludes them: {"workers": True, "judge": {"gpus_per_worker": True}}.
    NOT_IN_FINGERPRINT: ClassVar[Mapping[str, Any]] = {}


@dataclass(frozen=True)
class Input:
    """One finished output that a stage reads: where it lies and the digest of its content.

    For the corpus, `location` is its URI and there is no receipt; `withdrawn` are the keys, in order, of the
    records in it that were withdrawn.
    """

    name: str
    location: str
    digest: str
    receipt: Receipt | None = None
    withdrawn: tuple[str, ...] = ()

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

    @property
    def input_digests(self) -> dict[str, str]:
        """The content digests of the inputs by name, numbered where there are several of a name."""
        return {
            name if len(items) == 1 else f"{name}-{number}": item.digest
            for name, items in self.inputs.items()
            for number, item in enumerate(items)
        }

    def commit(self, relative: str, write: Callable[[Path], object]) -> FileEntry:
        """Write one file of the output, whole or not at all."""
        before_rename = partial(fault_point, f"{self.stage}.part.before_rename")
        store = store_at(self.out, self.run_id)
        return file_entry(relative, store.write(relative, write, before_commit=before_rename))

    def adopt(self, folder: str, *, name: str | None = None, counts: Counts | None = None) -> PartReceipt:
        """A part made of the files that already lie, whole, under `folder` (a saved model)."""
        paths = sorted(p for p in (self.out / folder).rglob("*") if p.is_file())
        entries = tuple(
            FileEntry(path=p.relative_to(self.out).as_posix(), bytes=p.stat().st_size, sha256=sha256_file(p))
            for p in paths
        )
        publish(self.out, entries)
        return PartReceipt(name=name or folder, files=entries, counts=counts or Counts())

    def folder(self, relative: str) -> AbstractContextManager[Path]:
        """Write a whole folder (a saved model): yields an empty one, which gets its name when it is left."""
        before_rename = partial(fault_point, f"{self.stage}.folder.before_rename")
        return write_folder(self.out / relative, suffix=self.run_id, before_rename=before_rename)


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
        "config": config.model_dump(mode="json", exclude=dict(config.NOT_IN_FINGERPRINT)),
        "inputs": input_digests(inputs),
    }
    return json_digest(value)[:FINGERPRINT_DIGITS]


def input_digests(inputs: Mapping[str, Iterable[Input]]) -> dict[str, list[str]]:
    """The content digests of the inputs by name; `withdrawals` only where records were withdrawn from one."""
    digests = {name: [item.digest for item in items] for name, items in inputs.items()}
    withdrawn = [item.withdrawn for items in inputs.values() for item in items if item.withdrawn]
    return digests | ({"withdrawals": [json_digest(withdrawn)]} if withdrawn else {})


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

    force: make it again beside the one that is there, which it replaces when it is whole; a forced run that
    was killed goes on where it was. Raises StageBusy if another run owns the output; whatever the stage
    raises leaves `failed.json`.
    """
    name, run_id = fingerprint(stage, snapshot, config, inputs), uuid.uuid4().hex[:8]
    out = home / stage.name / name
    owner = Owner.me(run_id, f"{stage.name} {name}")
    with hold(store_at(home / stage.name), f"{name}.lock", owner) as lease, _reading(inputs, home, owner):
        finish_swap(out)
        receipt = _swapped(out, stage.name, owner, progress) if awaits_swap(out) else None
        if receipt is None and not force:
            receipt = load_receipt(out)
        if receipt is not None:
            remove(out / SCRATCH)
            return receipt
        work = Work(
            stage=stage.name,
            snapshot=snapshot,
            config=config,
            inputs=inputs,
            out=forced_folder(out) if force else out,
            home=home,
            fingerprint=name,
            run_id=run_id,
            engine=engine,
            progress=progress,
            tracking_uri=tracking_uri,
        )
        receipt = _make(stage, work, lease)
        if force:
            receipt = _swapped(out, stage.name, owner, progress)
            assert receipt is not None, f"{work.out} does not verify although it was just made"
        return receipt


@contextmanager
def _reading(inputs: Mapping[str, tuple[Input, ...]], home: Path, owner: Owner) -> Iterator[None]:
    """Be a reader of every input that is an output under HOME, so that none is replaced meanwhile.

    Raises StageBusy when one was replaced by another content since the run was planned.
    """
    outputs = {item.path: item for items in inputs.values() for item in items if item.receipt is not None}
    with ExitStack() as stack:
        for path, item in outputs.items():
            if path.parents[1] != home:  # not HOME/<stage>/<fingerprint>
                continue
            stack.enter_context(reading(store_at(path.parent), path.name, owner))
            receipt = load_receipt(path, verify=False)
            if receipt is None or receipt.digest != item.digest:
                raise StageBusy(f"{owner.work}: its input {path} was replaced by another run; run again")
            fetch(path, receipt)
        yield


def _swapped(out: Path, stage: str, owner: Owner, progress: Progress) -> Receipt | None:
    """Put the forced output in its place once nobody reads the old one; None if it is not whole."""
    forced = forced_folder(out)
    if (receipt := load_receipt(forced)) is None:
        return None

    def name_readers(readers: Sequence[Owner]) -> None:
        names = ", ".join(f"{reader.work} ({reader})" for reader in readers)
        progress.say(f"{stage}: made again; waits for {names} to finish reading the old output")

    with exclusive(store_at(out.parent), out.name, owner, name_readers):
        swap(out, stage)
    forget_verified(forced)
    remember_verified(out, receipt)
    return receipt


def _make(stage: Stage, work: Work, lease: Lease) -> Receipt:
    """Run the stage's function and write the receipt, or `failed.json` if it raised."""
    started, startup = time.perf_counter(), work.engine.startup_seconds
    work.out.mkdir(parents=True, exist_ok=True)
    discard_damaged(work.out)
    claimed = claim(work.out, lease.owner)
    remove(work.out / FAILED)
    sweep(work.out)  # the lock is ours, so nobody is writing what is half-written there
    try:
        with peak_memory() as peak:
            parts = list(stage.run(work))
    except Exception as error:  # raised again; an interrupt is no failure
        write_failure(work.out, error, now())
        raise
    if not lease.held():
        raise StageBusy(f"{lease.owner.work} was taken over by another run while this one slept; run again")
    sweep(work.out)  # what workers of this run left that were killed and started again
    counts, reasons, files = total(parts)
    counts.check(stage.name)
    receipt = Receipt(
        stage=stage.name,
        version=stage.version,
        snapshot=work.snapshot,
        fingerprint=work.fingerprint,
        config=work.config.model_dump(mode="json"),
        inputs=input_digests(work.inputs),
        input_fingerprints={
            name: [item.receipt.fingerprint if item.receipt else item.digest for item in items]
            for name, items in work.inputs.items()
        },
        libraries=library_versions(),
        counts=counts,
        reasons=reasons,
        info=work.info,
        files=files,
        digest=content_digest(files),
        seconds=round(time.perf_counter() - started, 3),
        startup_seconds=round(work.engine.startup_seconds - startup, 3),
        peak_rss_mb=round(peak[0] / 2**20, 1),
        finished_at=now(),
    )
    before_commit = partial(fault_point, f"{stage.name}.receipt.before_rename")
    receipt = commit(work.out, receipt, claimed, lease.owner, before_commit)
    remember_verified(work.out, receipt)
    remove(work.scratch)
    return receipt
