"""The promote stage: registers the student, applies the gate, and moves the champion if it passes.

Every candidate becomes a version with the alias `challenger`, so that people can look at it; `champion`
moves only through the gate, and the champion before it stays as `previous`. Each move is a line in
HOME/promotions.jsonl. The same moves by hand are `promote` and `rollback` here.
"""

import getpass
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from components.evaluation.results import METRICS_FILE, read_metrics
from components.redaction import redacted
from pipelines.errors import GateRefused, StageFailed
from pipelines.registry.comparison import STEPS
from pipelines.registry.gate import NO_CHAMPION, Check, Decision, GateConfig, decide
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import (
    CHALLENGER,
    CHAMPION,
    GATE_TAG,
    PREVIOUS,
    QUALITY_TAG,
    REGISTERED_NAME,
    VERDICTS_TAG,
    ModelVersion,
    Registry,
    registry_of,
)
from pipelines.registry.packaging import MODEL_FILES
from pipelines.registry.quality import quality_of
from pipelines.registry.verdicts import VERDICTS_FILE, differences, read_verdicts
from pipelines.stage import Input, Stage, Work
from pipelines.store.faults import fault_point
from pipelines.store.local import LocalStore
from pipelines.store.receipts import (
    Counts,
    FileEntry,
    PartReceipt,
    canonical_json,
    content_digest,
)

HISTORY = "promotions.jsonl"
HISTORY_FIELDS: Mapping[str, Any] = {
    "at": "",
    "by": "",
    "action": "",
    "model": "",
    "from": None,
    "to": "",
    "metrics": {},
    "protocol": {},
    "checks": {},
}
MODEL_FOLDER = "model/"  # in distill's output
SAMPLES_FOLDER = "samples/"  # in evaluate's output


class PromoteConfig(GateConfig):
    """The gate, and the name under which the student is registered."""

    registered_name: str = Field(REGISTERED_NAME, pattern=r"^[\w\-. ]+$")


@dataclass(frozen=True)
class Promotion:
    """A move of the champion. replaced is the champion before; the same as version if nothing moved.

    notes: one line each, about what of the version's registered metrics is of another version's form.
    """

    version: str
    replaced: str | None
    decision: Decision | None = None
    notes: tuple[str, ...] = ()

    @property
    def moved(self) -> bool:
        return self.version != self.replaced


def run(work: Work) -> Iterator[PartReceipt]:
    """Register, decide, write decision.json, move the champion. Raises GateRefused (exit status 3)."""
    config: PromoteConfig = work.config
    distilled, evaluated = work.input("distill"), work.input("evaluate")
    assert evaluated.receipt is not None
    quality = quality_of(read_metrics(evaluated.path / METRICS_FILE), evaluated.receipt, config.steps)
    verdicts = read_verdicts(evaluated.files(SAMPLES_FOLDER), config.steps, quality.prompts)
    folder, digest = _model_of(distilled)
    gate = GateConfig.model_validate(config.model_dump(include=set(GateConfig.model_fields)))
    tags = {QUALITY_TAG: quality.to_json(), GATE_TAG: canonical_json(gate.model_dump())}
    tags["snapshot"] = work.snapshot
    registry = Registry(Tracker(work.home, work.tracking_uri), config.registered_name)
    inputs = {name: only.digest for name, (only,) in work.inputs.items()}
    with registry.locked():
        with registry.tracker.run(
            work.stage, work.fingerprint, params=config.model_dump(), datasets=inputs
        ) as tracked:
            version = registry.with_digest(digest) or registry.register(
                folder, digest, tracked, steps=config.steps, tags=tags
            )
            if verdicts is not None:
                tracked.log_text(verdicts.to_json(), VERDICTS_FILE)
            registry.describe(version, {**tags, VERDICTS_TAG: tracked.id if verdicts is not None else ""})
            registry.set_alias(CHALLENGER, version.version)
            decision = _decide(registry, registry.version(version.version), gate)
            document = {**decision.as_dict(), "model": digest}
            tracked.log_metrics(quality.numbers)
            tracked.set_tags({"verdict": document["verdict"], "version": version.version})
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        part = work.parts.write(
            "decision",
            {"decision.json": lambda path: path.write_text(text, encoding="utf-8")},
            counts=Counts.model_validate({"in": 1, "kept": 1}),
        )
        promotion = _move(registry, version, decision, forced=False)
    work.info.update(_registry_info(registry, promotion))
    yield part


STAGE = Stage("promote", 1, PromoteConfig, inputs=("distill", "evaluate"), run=run)


def promote(
    home: Path,
    reference: str = CHALLENGER,
    uri: str | None = None,
    *,
    name: str = REGISTERED_NAME,
    force: bool = False,
) -> Promotion:
    """Make a version or alias champion by hand, through the gate it was registered with.

    force: also if the gate refuses. Raises GateRefused, or ConfigError for a version that is not there.
    """
    registry = registry_of(home, uri, name)
    with registry.locked():
        version = registry.version(reference)
        decision = None
        if version.quality is not None:
            decision = _decide(registry, version, version.gate or GateConfig.model_validate({}))
        elif not force:
            reason = "; ".join(version.notes) or (
                f"version {version.version} of '{name}' was registered without an evaluation"
            )
            raise GateRefused(
                f"{reason}, so the gate cannot judge it; promote it with --force if you know it"
            )
        return _move(registry, version, decision, forced=force)


def rollback(home: Path, uri: str | None = None, *, name: str = REGISTERED_NAME) -> Promotion:
    """Make `previous` champion again. Raises ConfigError when there is none."""
    registry = registry_of(home, uri, name)
    with registry.locked():
        was, now = registry.rollback()
        promotion = Promotion(version=now, replaced=was, notes=registry.version(now).notes)
        _log(registry, "rollback", was, now)
        return promotion


def history(home: Path) -> list[dict[str, Any]]:
    """Every promotion, refusal and rollback, the oldest first, each with HISTORY_FIELDS.

    A line that is damaged or lacks a field is there with what can be read of it, and says so in `checks`.
    """
    path = home / HISTORY
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [_history_entry(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _history_entry(line: str, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        return {**HISTORY_FIELDS, "action": "unreadable", "checks": {"line": f"{where} cannot be read"}}
    return {**HISTORY_FIELDS, **entry}


def _decide(registry: Registry, version: ModelVersion, gate: GateConfig) -> Decision:
    """Compare with the champion; the champion itself with the one before it, as when it was promoted."""
    rival = registry.holder(PREVIOUS if CHAMPION in version.aliases else CHAMPION)
    assert version.quality is not None
    reason = NO_CHAMPION
    if rival is not None and rival.quality is None:
        reason = "; ".join(rival.notes) or f"version {rival.version} was registered without an evaluation"
        reason += ": compared with the thresholds only"
    decision = decide(
        version.quality,
        rival.quality if rival else None,
        gate,
        differences=differences(registry.verdicts(version), registry.verdicts(rival)) if rival else None,
        no_champion=reason,
    )
    notes = (*version.notes, *(rival.notes if rival and rival.quality else ()))
    return replace(decision, checks=(*decision.checks, *(Check("registered", None, note) for note in notes)))


def _move(
    registry: Registry, candidate: ModelVersion, decision: Decision | None, *, forced: bool
) -> Promotion:
    """Make the version champion if the gate passes it or is overruled, and add it to the history."""
    version = candidate.version
    champion = registry.holder(CHAMPION)
    before = champion.version if champion else None
    refused = decision is not None and not decision.passed
    if decision is not None and refused and not forced:
        _log(registry, "refuse", before, version, decision)
        stays = f"version {before} stays champion" if before else "there is no champion"
        raise GateRefused(
            f"gate refused version {version} of '{registry.name}': {decision.refusal}; {stays}. It is"
            f" `challenger`; `straightshot promote {version} --force` overrules"
        )
    registry.promote_alias(version)
    fault_point("promote.before_log")
    moves = [line for line in history(registry.tracker.home) if line["model"] == registry.name]
    moves = [line for line in moves if line["action"] != "refuse"]
    if before != version:
        _log(registry, "force" if refused else "promote", before, version, decision)
    elif not moves or moves[-1]["to"] != version:  # killed between the move and its line
        previous = registry.holder(PREVIOUS)
        _log(registry, "promote", previous.version if previous else None, version, decision)
    return Promotion(version=version, replaced=before, decision=decision, notes=candidate.notes)


def _log(
    registry: Registry, action: str, before: str | None, after: str, decision: Decision | None = None
) -> None:
    """Add a line to the history, whole or not at all; one that is the last already is not repeated."""
    quality = registry.version(after).quality
    entry: dict[str, Any] = {
        "action": action,
        "model": registry.name,
        "from": before,
        "to": after,
        "metrics": dict(quality.numbers) if quality else {},
        "protocol": {**quality.protocol, STEPS: quality.steps} if quality else {},
        "checks": {check.name: check.text for check in decision.checks} if decision else {},
    }
    home = registry.tracker.home
    lines = history(home)
    if lines and {key: lines[-1][key] for key in entry} == entry:
        return  # a run was killed after this line, or a refused one ran again
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "by": _user(), **entry}
    written = (home / HISTORY).read_bytes() if lines else b""
    if written and not written.endswith(b"\n"):  # the last line is torn
        written += b"\n"
    content = written + json.dumps(line, ensure_ascii=False).encode() + b"\n"
    LocalStore(home).write(
        HISTORY,
        lambda path: path.write_bytes(content),
        before_commit=lambda: fault_point("promote.history.before_rename"),
    )


def _model_of(distilled: Input) -> tuple[Path, str]:
    """The model folder in distill's output, and the digest of its content. Raises StageFailed."""
    assert distilled.receipt is not None
    files = [
        FileEntry(path=entry.path.removeprefix(MODEL_FOLDER), bytes=entry.bytes, sha256=entry.sha256)
        for entry in distilled.receipt.files
        if entry.path.startswith(MODEL_FOLDER)
    ]
    if missing := sorted(set(MODEL_FILES) - {entry.path for entry in files}):
        raise StageFailed(
            f"{distilled.path / MODEL_FOLDER} has no {' and no '.join(missing)}; run again with --force"
            " distill"
        )
    return distilled.path / MODEL_FOLDER, content_digest(files)


def _registry_info(registry: Registry, promotion: Promotion) -> Mapping[str, Any]:
    """For the receipt, not decision.json: what depends on the registry's past."""
    return {
        "registered_name": registry.name,
        "version": promotion.version,
        "replaced": promotion.replaced,
        "model": f"models:/{registry.name}@{CHAMPION}",
        "registry": redacted(registry.tracker.uri),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
