"""`straightshot gc`: remove the outputs under HOME that nobody needs, and what killed processes left.

What stays is roots.py's to say. What cannot be told stays, too: an output whose receipt does not count.
MLflow's and Dagster's files are theirs and are never touched. Everything that goes can be made again by the
run that made it.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from components.durable import TEMPORARY, remove
from pipelines.config import SAVED
from pipelines.errors import StageBusy
from pipelines.registry.packaging import DOWNLOADS
from pipelines.retention.catalog import FOLDER, STAGE_FOLDERS, Catalog, folders, output_name, read_catalog
from pipelines.retention.roots import in_progress, reasons_to_stay, served_downloads
from pipelines.store.faults import fault_point
from pipelines.store.home import ABANDONED_SECONDS
from pipelines.store.locks import READER, Owner, hold, living_readers
from pipelines.store.mirror import remote_of, store_at
from pipelines.store.outputs import REMOVED, checked_receipt, forget_verified, readable_receipt, retire
from pipelines.store.receipts import ReceiptError

KEEP = 2  # outputs of each stage for each snapshot, unless the command says otherwise
GC_LOCK = "gc.lock"


@dataclass(frozen=True)
class Item:
    """A folder or file under HOME, and why it stays or goes. bytes: of all files in it."""

    path: Path
    bytes: int
    stays: bool
    why: str
    snapshot: str = ""


@dataclass(frozen=True)
class Survey:
    """What a collection would keep and remove. config: the bytes of run.json when it was made."""

    home: Path
    items: tuple[Item, ...]
    config: bytes | None

    @property
    def going(self) -> list[Item]:
        return [item for item in self.items if not item.stays]


def survey(home: Path, keep: int = KEEP, uri: str | None = None) -> Survey:
    """Look at everything under HOME; nothing is removed. keep: outputs of a stage for a snapshot, 1 or more.

    Raises StageFailed or ConfigError when the registry does not answer: what it needs is then not known.
    """
    config = _saved(home)
    catalog = read_catalog(home)
    reasons = reasons_to_stay(home, catalog, keep, uri)
    outputs = list(_outputs(home, catalog, reasons))
    gone = {item.path for item in outputs if not item.stays} | set(in_progress(home))
    return Survey(home, (*outputs, *_downloads(home, uri), *_leftovers(home, gone)), config)


def collect(found: Survey, on_done: Callable[[Item], object] = lambda item: None) -> list[Item]:
    """Remove what is to go; returns what stays after all, since a run uses it. on_done: after each removal.

    Killed at any moment, an output is whole or not there, and another collection goes on. Raises StageBusy
    when another one is under way, or when a run with another config begins meanwhile.
    """
    home, used = found.home, []
    me = Owner.me(uuid.uuid4().hex[:8], "gc")
    with hold(store_at(home), GC_LOCK, me):
        for item in found.going:
            if _saved(home) != found.config:
                raise StageBusy(f"a run with another config began under {home} meanwhile; run gc again")
            if (why := _remove(item.path, me)) is None:
                on_done(item)
            else:
                used.append(replace(item, stays=True, why=why))
        if (remote := remote_of(home)) is not None:
            remote.remove_empty(READER, older_than=ABANDONED_SECONDS)
    return used


def remove_output(out: Path, owner: Owner) -> str | None:
    """Remove an output, or a folder beside one; why not, when a living run makes or reads it.

    Who is about to read it finds it gone and says so; who is about to make it finds its lock held.
    """
    store, name = store_at(out.parent), FOLDER.fullmatch(out.name)
    assert name is not None, f"{out} is no output's folder"
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(store, f"{name[1]}.lock", owner))
            stack.enter_context(hold(store, f"{name[1]}.swap", owner))
        except StageBusy:
            return "a run has begun to make it"
        if readers := living_readers(store, name[1]):
            return f"read by {readers[0]}"
        forget_verified(out)
        retired = retire(out)
    fault_point("gc.before_removal")
    remove(retired)
    return None


def _outputs(home: Path, catalog: Catalog, reasons: Mapping[Path, str]) -> Iterator[Item]:
    """Every output's folder and the folders beside it."""
    for stage in STAGE_FOLDERS:
        for path in folders(home / stage):
            stays, why = _verdict(path, reasons)
            output = catalog.outputs.get(path)
            yield Item(path, _bytes_in(path), stays, why, output.receipt.snapshot if output else "")


def _verdict(path: Path, reasons: Mapping[Path, str]) -> tuple[bool, str]:
    """Whether an output's folder, or one beside it, stays; and why."""
    out = path.with_name(path.name.partition(".")[0])
    if path.name.endswith(REMOVED):
        return False, "left by a collection that was killed"
    if out in reasons:
        return True, reasons[out]
    if path != out:
        if not out.exists() and readable_receipt(path) is not None:
            return True, f"whole, and to become {output_name(out)}: a forced run was killed"
        return False, f"left beside {output_name(out)} by a forced run that was killed"
    try:
        finished = checked_receipt(out) is not None
    except ReceiptError as error:
        return True, f"its receipt does not count, so who needs it cannot be told: {error}"
    return False, "nothing reaches it" if finished else "not finished, and not of the last run's config"


def _downloads(home: Path, uri: str | None) -> Iterator[Item]:
    """Models that were fetched from a remote registry."""
    served = served_downloads(home, uri)
    for path in folders(home / DOWNLOADS):
        stays = path.name in served
        why = (
            "a model with an alias"
            if stays
            else "fetched of a model that no alias names; fetched again if needed"
        )
        yield Item(path, _bytes_in(path), stays, why)


def _leftovers(home: Path, without: set[Path]) -> Iterator[Item]:
    """Temporaries of killed processes, but for those in the folders `without`."""
    before = time.time() - ABANDONED_SECONDS
    shallow = [path for name in ("", "cache", DOWNLOADS) for path in (home / name).glob(f"*{TEMPORARY}*")]
    fetching = (home / DOWNLOADS).glob("fetching-*")
    deep = [path for stage in STAGE_FOLDERS for path in (home / stage).rglob(f"*{TEMPORARY}*")]
    for path in sorted({*shallow, *fetching, *deep}):
        if without.isdisjoint(path.parents):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    yield Item(path, _bytes_in(path), False, "left half-written by a killed process")


def _remove(path: Path, me: Owner) -> str | None:
    """Remove a folder or file; why not, when it is in use."""
    if FOLDER.fullmatch(path.name) is None:
        remove(path)
    elif path.parent.name in STAGE_FOLDERS:
        return remove_output(path, me)
    else:
        remove(retire(path))
    return None


def _bytes_in(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for file in (path, *path.rglob("*")):
        with suppress(OSError):
            total += file.lstat().st_size if file.is_file() else 0
    return total


def _saved(home: Path) -> bytes | None:
    try:
        return (home / SAVED).read_bytes()
    except FileNotFoundError:
        return None
