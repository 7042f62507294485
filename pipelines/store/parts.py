"""The parts of one output: each is written once, with a receipt of its own, and found again by a resume."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from components.durable import Flushed
from pipelines.store.faults import fault_point
from pipelines.store.mirror import fetch_files, store_at
from pipelines.store.receipts import (
    PARTS,
    Counts,
    PartReceipt,
    ReceiptError,
    file_entry,
    files_verify,
    read_receipt,
    write_receipt,
)
from pipelines.store.store import Store


@dataclass(frozen=True)
class Parts:
    """The parts of one output. Picklable: workers get it and write through it.

    root: the output's folder. stage: for fault points. run_id: marks this run's temporaries. folder: a
    sub-folder of root, for intermediate parts.
    """

    root: Path
    stage: str
    run_id: str = ""
    folder: str = ""

    def within(self, folder: str) -> "Parts":
        """The same, for intermediate parts under `folder`."""
        return Parts(self.root, self.stage, self.run_id, folder)

    def path(self, name: str) -> Path:
        """Where the file `name` of a part lies."""
        return self.root / self.folder / name

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
        """Write the part's files (relative path -> writer), then its receipt `parts/<name>.json`.

        timings: those of the files that are no part of the output's content digest.
        """
        before_rename = partial(fault_point, f"{self.stage}.part.before_rename")
        entries = [
            file_entry(
                relative,
                self._store.write(relative, fill, before_commit=before_rename),
                timing=relative in timings,
            )
            for relative, fill in files.items()
        ]
        receipt = PartReceipt(
            name=name,
            files=tuple(entries),
            counts=counts or Counts(),
            reasons=dict(reasons or {}),
            info=dict(info or {}),
        )
        receipt.counts.check(f"{self.stage} part {name}")
        fault_point(f"{self.stage}.part.before_receipt")
        return write_receipt(
            self._store,
            f"{PARTS}/{name}.json",
            receipt,
            before_commit=partial(fault_point, f"{self.stage}.part_receipt.before_rename"),
        )

    def finished(self, name: str) -> PartReceipt | None:
        """The part's receipt if it is there and its files verify; else None (it is to be done again)."""
        base = self.root / self.folder
        try:
            receipt = read_receipt(self._store, f"{PARTS}/{name}.json", PartReceipt)
            if receipt is not None:
                fetch_files(base, receipt.files)
        except (ReceiptError, FileNotFoundError):
            return None
        return receipt if receipt and files_verify(base, receipt.files) else None

    @property
    def _store(self) -> Store:
        # Nobody uses a part unseen: `finished` compares its hash, and the stage's commit flushes all names
        # first. So a power cut costs parts at most, and each flush is a wait for the disk.
        flushed: Flushed = "nothing" if self.folder else "bytes"
        return store_at(self.root / self.folder, self.run_id, flushed=flushed)
