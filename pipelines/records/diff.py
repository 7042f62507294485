"""Which records changed their fate between two outputs of the filter, and why."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.errors import ConfigError
from pipelines.retention.catalog import Output, read_catalog
from pipelines.stages.data.part_records import DROPPED_FOLDER, FILTERED_FOLDER, REJECTS_FOLDER
from pipelines.store.outputs import fetch

KEPT, ABSENT = "kept", "absent"
WITHOUT_TEXT = "kept without its alt text"
SHORTEST = 6  # hex digits that name an output


@dataclass(frozen=True)
class Fate:
    """What became of a record: kept (or why without its alt text), the reason of its reject, or absent (not
    in that corpus).
    """

    what: str
    detail: str = ""


@dataclass(frozen=True)
class Change:
    """A record that fared otherwise in the second output."""

    key: str
    url: str | None
    alt_text: str | None
    before: Fate
    after: Fate


@dataclass(frozen=True)
class Diff:
    """before, after: stage/fingerprint. same: records whose fate did not change."""

    before: str
    after: str
    same: int
    changes: tuple[Change, ...]

    @property
    def moves(self) -> Counter[tuple[str, str]]:
        """How many records went from which fate to which."""
        return Counter((change.before.what, change.after.what) for change in self.changes)


def diff(home: Path, before: str | None, after: str | None) -> Diff:
    """Compare two outputs of the filter, by their fingerprints' first digits; by default the last two of one
    snapshot. Raises ConfigError where they are not there, or hold different snapshots.
    """
    outputs = read_catalog(home).of("filter")
    new = _named(outputs, after) if after else next(iter(outputs), None)
    if new is None:
        raise ConfigError(f"no output of the filter under {home}; make one with `straightshot run`")
    older = [o for o in outputs if o.receipt.snapshot == new.receipt.snapshot and o.path != new.path]
    old = _named(outputs, before) if before else next(iter(older), None)
    if old is None:
        raise ConfigError(
            f"{new.name} is the only output of the filter for snapshot '{new.receipt.snapshot}' under {home};"
            " there is nothing to compare it with"
        )
    if old.receipt.snapshot != new.receipt.snapshot:
        raise ConfigError(
            f"{old.name} is of snapshot '{old.receipt.snapshot}' and {new.name} of '{new.receipt.snapshot}':"
            " a record of two snapshots is two records; give outputs of one"
        )
    return _compared(old, new)


def _named(outputs: list[Output], name: str) -> Output:
    digits = name.removeprefix("filter/")
    found = [o for o in outputs if o.path.name.startswith(digits)] if len(digits) >= SHORTEST else []
    if len(found) != 1:
        names = ", ".join(output.name for output in outputs) or "none"
        raise ConfigError(f"'{name}' names no output of the filter, or several; there are {names}")
    return found[0]


def _compared(old: Output, new: Output) -> Diff:
    before = {key: fate for key, fate, _, _ in _fates(old)}
    same, changes = 0, []
    for key, fate, url, text in _fates(new):
        was = before.pop(key, Fate(ABSENT))
        if was.what == fate.what:
            same += 1
        else:
            changes.append(Change(key, url, text, was, fate))
    if before:
        gone = ((key, url, text) for key, _, url, text in _fates(old) if key in before)
        changes += [Change(key, url, text, before[key], Fate(ABSENT)) for key, url, text in gone]
    return Diff(old.name, new.name, same, tuple(changes))


def _fates(output: Output) -> Iterator[tuple[str, Fate, str | None, str | None]]:
    """key, fate, url and alt text of every record."""
    fetch(output.path, output.receipt)
    for entry in sorted(output.receipt.files, key=lambda entry: entry.path):
        folder, path = entry.path.partition("/")[0], output.path / entry.path
        if folder == FILTERED_FOLDER:
            for row in pq.read_table(path, columns=["key", "url", "alt_text"]).to_pylist():
                if row["alt_text"] is not None:  # else its row is among the dropped texts
                    yield row["key"], Fate(KEPT), row["url"], row["alt_text"]
        elif folder in (REJECTS_FOLDER, DROPPED_FOLDER):
            for row in pq.read_table(path).to_pylist():
                what = row["reason"] if folder == REJECTS_FOLDER else f"{WITHOUT_TEXT}: {row['reason']}"
                yield row["key"], Fate(what, row["detail"] or ""), row["url"], row["alt_text"]
