"""Every finished output under a HOME, and which outputs each was made from.

Receipts say it: a stage's inputs by fingerprint and by content digest, a source (a toy web) by digest alone.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipelines.graph import EVERY_STAGE
from pipelines.sources import TOY_WEB, web_digests
from pipelines.store.outputs import FORCED, REMOVED, REPLACED, readable_receipt
from pipelines.store.receipts import RECEIPT, Receipt

# In the order in which they read each other.
STAGE_FOLDERS = (
    TOY_WEB.name,
    *(stage.name for stage in EVERY_STAGE),
)

# An output's folder, or one beside it; group 1: the fingerprint.
FOLDER = re.compile(rf"([0-9a-f]{{16}})(?:{FORCED}|{REPLACED})?(?:{REMOVED})?".replace(".", r"\."))


@dataclass(frozen=True)
class Output:
    """A finished output: its folder and its receipt."""

    path: Path
    receipt: Receipt

    @property
    def name(self) -> str:
        return output_name(self.path)

    def digests(self) -> set[str]:
        """The content digests by which a later stage's receipt may name it."""
        own = web_digests(self.receipt) if self.receipt.stage == TOY_WEB.name else ()
        return {self.receipt.digest, *own}


@dataclass(frozen=True)
class Catalog:
    """The outputs whose receipts count, by their folder."""

    outputs: dict[Path, Output]

    def of(self, stage: str) -> list[Output]:
        """The outputs of a stage, the newest first."""
        own = [output for output in self.outputs.values() if output.receipt.stage == stage]
        return sorted(own, key=lambda output: output.receipt.finished_at, reverse=True)

    def inputs(self, output: Output) -> list[Output]:
        """What an output was made from, as far as it is still there."""
        receipt, found = output.receipt, []
        for name, digests in receipt.inputs.items():
            fingerprints = receipt.input_fingerprints.get(name, digests)
            for digest, fingerprint in zip(digests, fingerprints, strict=False):
                named = self.outputs.get(output.path.parents[1] / name / fingerprint)
                same = [named] if named and digest in named.digests() else self._by_digest.get(digest, [])
                found += [other for other in same if other.path != output.path]
        return found

    def upstream(self, roots: Iterable[Output]) -> Iterator[tuple[Output, Output]]:
        """All that the roots were made from, each once: (output, one that was made from it)."""
        waiting = list(roots)
        seen = {output.path for output in waiting}
        while waiting:
            consumer = waiting.pop()
            for output in self.inputs(consumer):
                if output.path not in seen:
                    seen.add(output.path)
                    waiting.append(output)
                    yield output, consumer

    @cached_property
    def _by_digest(self) -> dict[str, list[Output]]:
        found: dict[str, list[Output]] = {}
        for output in self.outputs.values():
            for digest in output.digests():
                found.setdefault(digest, []).append(output)
        return found


def read_catalog(home: Path) -> Catalog:
    """The outputs under HOME; a receipt that does not count is left out."""
    outputs = {}
    for stage in STAGE_FOLDERS:
        for path in sorted((home / stage).glob(f"*/{RECEIPT}")):
            out = path.parent
            receipt = readable_receipt(out)
            if receipt is not None and receipt.fingerprint == out.name and receipt.stage == stage:
                outputs[out] = Output(out, receipt)
    return Catalog(outputs)


def output_name(out: Path) -> str:
    """`stage/fingerprint`, as messages and tables name an output."""
    return f"{out.parent.name}/{out.name}"


def folders(stage: Path) -> list[Path]:
    """The folders of a stage's outputs, finished or not, and those beside them."""
    if not stage.is_dir():
        return []
    return sorted(path for path in stage.iterdir() if path.is_dir() and FOLDER.fullmatch(path.name))
