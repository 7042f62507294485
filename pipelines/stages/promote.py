"""The promote stage: registers the student, applies the gate, and moves the champion if it passes.

    HOME/promote/<fingerprint>/decision.json, model_card.md, lineage.json

Every candidate becomes a version with the alias `challenger`, so that people can look at it. Card and lineage
go to its MLflow run, too. Who becomes champion is registry/champion.py's affair.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from components.evaluation.results import METRICS_FILE, read_metrics
from components.redaction import redacted
from pipelines.errors import StageFailed
from pipelines.registry.champion import Promotion, changing
from pipelines.registry.gate import GateConfig
from pipelines.registry.lineage import LINEAGE_FILE, behind, lineage_of, summary
from pipelines.registry.mlflow_run import TrackedRun
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_card import CARD_FILE, description_of, model_card, with_withdrawals
from pipelines.registry.model_registry import CHALLENGER, CHAMPION, REGISTERED_NAME, Registry
from pipelines.registry.model_version import (
    CARD_TAG,
    LINEAGE_TAG,
    QUALITY_TAG,
    SNAPSHOT_TAG,
    VERDICTS_TAG,
    ModelVersion,
)
from pipelines.registry.packaging import MODEL_FILES, damaged_files
from pipelines.registry.quality import quality_of
from pipelines.registry.verdicts import VERDICTS_FILE, read_verdicts
from pipelines.stage import Input, Stage, Work
from pipelines.store.receipts import MODEL, Counts, PartReceipt, canonical_json, content_digest

DECISION_FILE = "decision.json"
SAMPLES_FOLDER = "samples/"  # in evaluate's output


class PromoteConfig(GateConfig):
    """The name under which the student is registered, and the first gate of that name.

    Once a gate is stored with the name, it alone counts (`straightshot gate show|set`).
    """

    registered_name: str = Field(REGISTERED_NAME, pattern=r"^[\w\-. ]+$")

    @property
    def gate(self) -> GateConfig:
        return GateConfig.model_validate(self.model_dump(include=set(GateConfig.model_fields)))


def run(work: Work) -> Iterator[PartReceipt]:
    """Register, decide, write what was decided, move the champion. Raises GateRefused (exit status 3)."""
    config: PromoteConfig = work.config
    registry = Registry(Tracker(work.home, work.tracking_uri), config.registered_name)
    inputs = {name: only.digest for name, (only,) in work.inputs.items()}
    with changing(registry) as its:
        gate = its.gate(config.gate)
        if gate.limits != config.gate:
            work.progress.say(_of_another_gate(config.gate, gate.limits, gate.version, registry.name))
        with registry.tracker.run(
            work.stage, work.fingerprint, params=config.model_dump(), datasets=inputs
        ) as tracked:
            version, texts = _register(work, registry, tracked, gate.limits)
            decision = its.decide(version, gate.limits)
            document = {**decision.as_dict(), "gate": gate.version, "model": version.digest}
            texts[DECISION_FILE] = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
            tracked.log_metrics(decision.candidate.numbers)
            tracked.set_tags({"verdict": document["verdict"], "version": version.version})
        part = work.parts.write(
            "decision",
            {name: _writer(text) for name, text in texts.items()},
            counts=Counts.model_validate({"in": 1, "kept": 1}),
        )
        if decision.passed:
            its.keep_gate(gate)  # before the move: a champion without a gate is judged by the default one
        promotion = its.move(version, decision)
    work.info.update(_registry_info(registry, promotion))
    yield part


STAGE = Stage("promote", 2, PromoteConfig, inputs=("distill", "evaluate"), run=run)


def _register(
    work: Work, registry: Registry, tracked: TrackedRun, gate: GateConfig
) -> tuple[ModelVersion, dict[str, str]]:
    """The student as a version, with what was measured; and the texts that say where it comes from."""
    distilled, evaluated = work.input("distill"), work.input("evaluate")
    assert distilled.receipt is not None and evaluated.receipt is not None
    metrics = read_metrics(evaluated.path / METRICS_FILE)
    quality = quality_of(metrics, evaluated.receipt, gate.steps)
    verdicts = read_verdicts(evaluated.files(SAMPLES_FOLDER), gate.steps, quality.prompts)
    folder, digest = _model_of(distilled)
    receipts = behind(work.home, (distilled.receipt, evaluated.receipt))
    lineage = lineage_of(receipts)
    texts = {CARD_FILE: model_card(digest, receipts, lineage, metrics), LINEAGE_FILE: lineage.to_json()}
    tags = {
        QUALITY_TAG: quality.to_json(),
        SNAPSHOT_TAG: work.snapshot,
        LINEAGE_TAG: canonical_json(summary(lineage)),
    }
    version = registry.with_digest(digest)
    if version is None or damaged_files(registry.package(version), version.files):
        version = registry.register(folder, digest, tracked, steps=gate.steps, tags=tags)
    logged = {**texts, VERDICTS_FILE: verdicts.to_json()} if verdicts is not None else texts
    for name, text in logged.items():
        tracked.log_text(text, name)
    runs = {CARD_TAG: tracked.id, VERDICTS_TAG: tracked.id if verdicts is not None else ""}
    registry.describe(version, {**tags, **runs})
    card = with_withdrawals(texts[CARD_FILE], version.withdrawn)
    registry.set_description(version, description_of(card))
    registry.set_alias(CHALLENGER, version.version)
    return registry.version(version.version), texts


def _of_another_gate(asked: GateConfig, stored: GateConfig, version: int, name: str) -> str:
    """The line that says which limits of the config do not count."""
    fields = [f for f in GateConfig.model_fields if getattr(asked, f) != getattr(stored, f)]
    differ = ", ".join(f"{f} {getattr(stored, f)}, not {getattr(asked, f)}" for f in fields)
    return f"promote: the gate of '{name}' counts, not the config's: {differ} (version {version} of the gate)"


def _writer(text: str) -> Any:
    return lambda path: path.write_text(text, encoding="utf-8")


def _model_of(distilled: Input) -> tuple[Path, str]:
    """The model folder in distill's output, and the digest of its content. Raises StageFailed."""
    assert distilled.receipt is not None
    folder, files = distilled.path / MODEL, distilled.receipt.files_in(MODEL)
    if missing := sorted(set(MODEL_FILES) - {entry.path for entry in files}):
        raise StageFailed(f"{folder} has no {' and no '.join(missing)}; run again with --force distill")
    return folder, content_digest(files)


def _registry_info(registry: Registry, promotion: Promotion) -> Mapping[str, Any]:
    """For the receipt, not decision.json: what depends on the registry's past."""
    return {
        "registered_name": registry.name,
        "version": promotion.version,
        "replaced": promotion.replaced,
        "model": f"models:/{registry.name}@{CHAMPION}",
        "registry": redacted(registry.tracker.uri),
    }
