"""The outputs of the stages under HOME: one is found whole, mended, or replaced by a forced run's.

HOME/<stage>/<fingerprint>/         an output; complete once its receipt is there
HOME/<stage>/<fingerprint>.forced/  what `--force` makes beside it
HOME/<stage>/<fingerprint>.removed/ one that was given up and is being deleted
HOME/<stage>/<fingerprint>.lock, .reader-<run>, .swap: see locks.py
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from components.durable import exchange, remove, rename, write_text
from components.errors import one_line
from pipelines.store.faults import fault_point
from pipelines.store.mirror import fetch_files, remote_of, store_at
from pipelines.store.receipts import (
    PARTS,
    RECEIPT,
    PartReceipt,
    Receipt,
    ReceiptError,
    canonical_json,
    files_verify,
    read_receipt,
)
from pipelines.store.verified import VerifiedFiles, state_of

FAILED = "failed.json"
SCRATCH = "scratch"
FORCED, REPLACED, REMOVED = ".forced", ".replaced", ".removed"  # end the names of folders beside an output


def load_receipt(out: Path, *, verify: bool = True) -> Receipt | None:
    """The receipt of a complete output; None when there is none, or its files are not as it lists them.

    Files that were hashed before and have the same sizes, times and inodes are not hashed again.
    """
    receipt = readable_receipt(out)
    return receipt if receipt and (not verify or files_stand(out, receipt)) else None


def readable_receipt(out: Path) -> Receipt | None:
    """The receipt in a folder, its files unseen; None when there is none that counts."""
    with suppress(ReceiptError):
        return checked_receipt(out)
    return None


def checked_receipt(out: Path) -> Receipt | None:
    """The receipt in a folder, None when there is none. Raises ReceiptError for one that does not count."""
    receipt = read_receipt(store_at(out), RECEIPT, Receipt)
    if receipt is not None and receipt.fingerprint != out.name.removesuffix(FORCED):
        raise ReceiptError(f"it is the receipt of another output, {receipt.stage} {receipt.fingerprint}")
    return receipt


def files_stand(out: Path, receipt: Receipt) -> bool:
    """Whether the files are as the receipt lists them, hashed now or when they were last looked at.

    Those in a bucket, which keeps what it was given, by their sizes: a look downloads nothing.
    """
    if (remote := remote_of(out)) is not None:
        sizes = remote.sizes()
        return all(sizes.get(entry.path, (0, ""))[0] == entry.bytes for entry in receipt.files)
    return _files_stand(out, receipt)


def _files_stand(out: Path, receipt: Receipt) -> bool:
    state, memory, name = _state(out, receipt), _memory(out), _name(out)
    if state is None:
        return False
    if memory.recall(name, state) == receipt.sha256:
        return True
    if not files_verify(out, receipt.files):
        return False
    memory.record(name, state, receipt.sha256)
    return True


def remember_verified(out: Path, receipt: Receipt) -> None:
    """Note that the files, just written and hashed, are as the receipt lists them."""
    if (state := _state(out, receipt)) is not None:
        _memory(out).record(_name(out), state, receipt.sha256)


def forget_verified(out: Path) -> None:
    """Have the output's files hashed at the next look."""
    _memory(out).forget(_name(out))


def fetch(out: Path, receipt: Receipt) -> None:
    """Have the output's files on this host, where HOME is in a bucket. Raises OSError when they cannot be."""
    if remote_of(out) is not None and not _files_stand(out, receipt):
        fetch_files(out, receipt.files)
        remember_verified(out, receipt)


def discard_damaged(out: Path) -> None:
    """Remove a receipt whose output does not verify, and of the output what no part receipt guards.

    A saved model is taken for whole where its folder stands, so a damaged one goes with all its files. Under
    a receipt that does not count, nothing is known of the files that no part guards: all of them go.
    """
    if store_at(out).read(RECEIPT) is None:
        return
    guarded = {entry.path for part in _part_receipts(out) for entry in part.files}
    if (receipt := readable_receipt(out)) is not None:
        unguarded = [entry for entry in receipt.files if entry.path not in guarded]
        damaged = [entry.path for entry in unguarded if not files_verify(out, [entry])]
    else:
        damaged = [name for name in _files(out) if name not in guarded and not name.startswith(f"{PARTS}/")]
    shared = {Path(name).parts[0] for name in guarded}
    for name in damaged:
        top = Path(name).parts[0]
        remove(out / (name if top in shared else top))
    _remove_receipt(out)


def write_failure(out: Path, error: Exception, at: str) -> None:
    """Leave `failed.json`: what the stage raised, and when."""
    text = canonical_json({"error": f"{type(error).__name__}: {one_line(error)}", "at": at})
    with suppress(OSError):  # no space, perhaps: the stage's own error is the one to show
        write_text(out / FAILED, text)


def read_failure(out: Path) -> str | None:
    """What a failed stage raised, as one line; None when it did not fail."""
    path = out / FAILED
    if not path.exists():
        return None
    try:
        return one_line(json.loads(path.read_bytes())["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return "it failed"


def forced_folder(out: Path) -> Path:
    """Where a forced run makes the output again, beside the one that is there."""
    return out.with_name(f"{out.name}{FORCED}")


def awaits_swap(out: Path) -> bool:
    """Whether a forced output lies whole beside `out` and has not taken its place: the run was killed there.

    One that is older than the output is what was replaced, left by a kill between the swap and its removal.
    """
    forced, current = readable_receipt(forced_folder(out)), readable_receipt(out)
    if forced is None:
        return False
    return current is None or forced.finished_at > current.finished_at


def swap(out: Path, stage: str) -> None:
    """Put the forced output in the place of the old one, which is then removed.

    In one step where the file system can exchange two names; elsewhere (NFS) by two renames, and a kill
    between them leaves both whole beside the place, for `finish_swap`.
    """
    forced, replaced = forced_folder(out), out.with_name(f"{out.name}{REPLACED}")
    fault_point(f"{stage}.swap.before_exchange")
    if remote_of(out) is not None:
        _swap_in_bucket(out, stage)
    elif not out.exists():
        rename(forced, out)
    elif exchange(forced, out):
        rename(forced, replaced)
    else:
        rename(out, replaced)
        fault_point(f"{stage}.swap.between_renames")
        rename(forced, out)
    fault_point(f"{stage}.swap.before_removal")
    remove(replaced)


def finish_swap(out: Path) -> None:
    """Clear up after a swap that was killed on its way; its lock is ours.

    Killed between the two renames, the new output takes its place; killed later, the old one is removed.
    """
    replaced, forced = out.with_name(f"{out.name}{REPLACED}"), forced_folder(out)
    if replaced.exists() and not out.exists():
        rename(forced if readable_receipt(forced) else replaced, out)
    remove(replaced)
    if readable_receipt(forced) is not None and not awaits_swap(out):
        _remove_from_bucket(forced)
        remove(forced)


def _swap_in_bucket(out: Path, stage: str) -> None:
    """As `swap`. Until the new receipt is there, the forced output is whole; killed, it is made again."""
    forced, parent = forced_folder(out), remote_of(out.parent)
    assert parent is not None, f"{out} lies in no bucket"
    names = sorted(parent.within(forced.name).sizes(), key=lambda name: name == RECEIPT)  # it is the last
    _remove_receipt(out)
    _remove_from_bucket(out)
    for name in names:
        if name == RECEIPT:
            fault_point(f"{stage}.swap.between_renames")
        parent.copy(f"{forced.name}/{name}", f"{out.name}/{name}")
    _remove_from_bucket(forced)
    if forced.exists():  # made on this host
        remove(out)
        rename(forced, out)


def retire(out: Path) -> Path:
    """Take an output, or a folder beside one, out of use; its lock is ours. Returns the folder to delete.

    It loses its receipt, then its name: killed on the way it is whole or not there. A folder that is half
    gone never has a name under which a run would take up what is left in it.
    """
    retired = out.with_name(f"{out.name.removesuffix(REMOVED)}{REMOVED}")
    if out != retired and out.exists():
        remove(retired)
        fault_point("gc.before_receipt")
        _remove_receipt(out)
        fault_point("gc.before_rename")
        _remove_from_bucket(out)
        rename(out, retired)
    return retired


def _remove_receipt(out: Path) -> None:
    remove(out / RECEIPT)
    if (remote := remote_of(out)) is not None and (stored := remote.read(RECEIPT)) is not None:
        remote.delete(RECEIPT, if_match=stored.tag)


def _remove_from_bucket(out: Path) -> None:
    """Delete an output's objects, its receipt gone before."""
    if (remote := remote_of(out)) is not None:
        remote.remove("")


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def _part_receipts(out: Path) -> Iterator[PartReceipt]:
    store = store_at(out)
    for key in store.keys(f"{PARTS}/"):
        with suppress(ReceiptError):
            if (part := read_receipt(store, key, PartReceipt)) is not None:
                yield part


def _state(out: Path, receipt: Receipt) -> str | None:
    return state_of(out / entry.path for entry in receipt.files)


def _memory(out: Path) -> VerifiedFiles:
    return VerifiedFiles(out.parents[1])


def _name(out: Path) -> str:
    return f"{out.parent.name}/{out.name}"
