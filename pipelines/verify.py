"""The full check of what lies under HOME: every byte of every output against its receipt.

`status` and `run` trust a file whose size, time and inode are as they were when it was hashed. This does not,
and what it finds is hashed by them at the next look.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import ConfigError
from pipelines.store.mirror import fetch_files
from pipelines.store.outputs import FORCED, checked_receipt, forget_verified, remember_verified
from pipelines.store.receipts import RECEIPT, FileEntry, Receipt, ReceiptError, wrong_with


@dataclass(frozen=True)
class Fault:
    """A file that is not as its receipt lists it, or a receipt that does not count."""

    path: Path
    what: str


@dataclass(frozen=True)
class Verification:
    """One output: how many files and bytes were hashed, and what is wrong."""

    out: Path
    files: int
    bytes: int
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Target:
    """What is to be hashed of one output: its folder, and where in it (the folder itself for all of it)."""

    out: Path
    within: Path

    def receipt(self) -> Receipt | None:
        """The receipt of the output. Raises ReceiptError for one that does not count."""
        return checked_receipt(self.out)

    def entries(self, receipt: Receipt) -> list[FileEntry]:
        """The files that are meant."""
        return [entry for entry in receipt.files if (self.out / entry.path).is_relative_to(self.within)]

    def bytes(self) -> int:
        """How many bytes there are to hash; 0 when the receipt does not count."""
        try:
            receipt = self.receipt()
        except ReceiptError:
            return 0
        return sum(entry.bytes for entry in self.entries(receipt)) if receipt else 0


def targets(home: Path, target: str | None = None) -> list[Target]:
    """What `target` names: a stage's outputs, an output, a file or folder in one; None: every output.

    Raises ConfigError when there is nothing of that name.
    """
    if target is None:
        every_output = [Target(out, out) for out in _outputs(home)]
        if not every_output:
            raise ConfigError(f"there is no output under {home}; `straightshot run --home {home}` makes them")
        return every_output
    if of_stage := [Target(out, out) for out in _outputs(home / target)]:
        return of_stage
    path = Path(target).expanduser().absolute()
    if below := [Target(out, out) for out in _outputs(path)]:
        return below
    for out in (path, *path.parents):
        if (out / RECEIPT).is_file():
            within = out if path.name == RECEIPT else path
            return [Target(out, within)]
    raise ConfigError(
        f"'{target}' is neither a stage with outputs under {home}, nor a path in an output, nor an image;"
        " `straightshot verify` alone checks all outputs"
    )


def verify(target: Target, on_bytes: Callable[[int], object] = lambda count: None) -> Verification:
    """Hash every file that is meant. on_bytes: called after each with its size, for a progress bar.

    A whole output is remembered as verified, or forgotten, so that the next run makes it again.
    """
    try:
        receipt = target.receipt()
    except ReceiptError as error:
        return Verification(target.out, 0, 0, (Fault(target.out / RECEIPT, str(error)),))
    if receipt is None:  # removed since the listing
        return Verification(target.out, 0, 0, (Fault(target.out / RECEIPT, "it is missing"),))
    entries = target.entries(receipt)
    if not entries and target.within != target.out:
        return Verification(target.out, 0, 0, (Fault(target.within, "no receipt lists it"),))
    faults = []
    with suppress(FileNotFoundError):  # what the bucket of a HOME has not is found missing below
        fetch_files(target.out, entries)
    for entry in entries:
        path = target.out / entry.path
        if what := wrong_with(path, entry):
            faults.append(Fault(path, what))
        on_bytes(entry.bytes)
    if faults:
        forget_verified(target.out)
    elif target.within == target.out:
        remember_verified(target.out, receipt)
    return Verification(target.out, len(entries), sum(entry.bytes for entry in entries), tuple(faults))


def _outputs(folder: Path) -> Iterator[Path]:
    """The outputs under HOME, or under a stage's folder; what a forced run has begun is none yet."""
    paths = sorted([*folder.glob(f"*/{RECEIPT}"), *folder.glob(f"*/*/{RECEIPT}")])
    return (path.parent for path in paths if not path.parent.name.endswith(FORCED))
