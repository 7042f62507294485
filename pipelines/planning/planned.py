"""One stage in a plan: how its output stands to its config and inputs, and what differs from the last one."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipelines.stage import Input, Stage, StageConfig, input_digests
from pipelines.store.mirror import fetch_files
from pipelines.store.receipts import Receipt


class State(StrEnum):
    """How an output stands to its config and inputs."""

    FRESH = "fresh"
    STALE = "stale"  # there is an output, of another config or other inputs
    MISSING = "missing"
    RUNNING = "running"
    FAILED = "failed"


@dataclass(frozen=True)
class Planned:
    """One stage in a plan. `fingerprint` and `path` are None while an upstream stage has yet to run.

    receipt: of the output itself when fresh, else of the last output that there is.
    """

    stage: Stage
    snapshot: str
    state: State
    why: str
    fingerprint: str | None = None
    path: Path | None = None
    receipt: Receipt | None = None

    @property
    def fresh(self) -> bool:
        return self.state is State.FRESH

    def files(self, prefix: str, most: int | None = None) -> list[Path]:
        """The first files of the output under `prefix`, in name order, on this host; none without one."""
        if self.path is None or self.receipt is None:
            return []
        entries = [entry for entry in self.receipt.files if entry.path.startswith(prefix)]
        wanted = sorted(entries, key=lambda entry: entry.path)[:most]
        fetch_files(self.path, wanted)
        return [self.path / entry.path for entry in wanted]


def changes_since(
    last: Receipt, stage: Stage, config: StageConfig, inputs: Mapping[str, tuple[Input, ...]]
) -> list[str]:
    """What of the stage differs from its last output, in words; of inputs, those that are given."""
    changes = []
    if last.version != stage.version:
        changes.append(f"version {last.version} -> {stage.version}")
    before, now = (
        _without(dump, config.NOT_IN_FINGERPRINT) for dump in (last.config, config.model_dump(mode="json"))
    )
    fields = changed_fields(before, now)
    if fields:
        changes.append(f"config: {', '.join(fields)} changed")
    for name, digests in input_digests(inputs).items():
        if last.inputs.get(name) != digests:
            changes.append(f"input {name} changed")
    return changes


def changed_fields(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names of the values that differ between two JSON objects."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [prefix.rstrip(".")] if old != new else []
    return [
        name
        for key in dict.fromkeys([*old, *new])
        for name in changed_fields(old.get(key), new.get(key), f"{prefix}{key}.")
    ]


def _without(config: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A config's dump without these fields: name -> True, or the same of a section's fields."""
    kept = {name: value for name, value in config.items() if fields.get(name) is not True}
    return {
        name: _without(value, fields[name]) if name in fields and isinstance(value, Mapping) else value
        for name, value in kept.items()
    }
