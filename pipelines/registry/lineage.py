"""Where a registered model comes from: every output, snapshot and tar behind it, by the receipts; and back.

A lineage is kept with the version in the registry (lineage.json of its MLflow run), so that it can be asked
after the outputs are gone.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError
from pipelines.registry.model_registry import ALIASES, Registry, registry_of
from pipelines.registry.model_version import ModelVersion
from pipelines.stage import NO_OUTPUTS
from pipelines.store.outputs import readable_receipt
from pipelines.store.receipts import Receipt

LINEAGE_FILE = "lineage.json"
SHORTEST_HASH = 8  # hex digits that name something


@dataclass(frozen=True)
class Made:
    """One output behind a model. digest: of its content; empty where its receipt is gone.

    No time of its making: the lineage is part of promote's output, and the same inputs give the same bytes.
    """

    stage: str
    fingerprint: str
    snapshot: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Tar:
    """A tar that a model was trained on or measured by, and the snapshot that it holds records of."""

    snapshot: str
    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Lineage:
    """outputs: upstream first. sources: the digests of raw corpora and labelled sets, by name."""

    outputs: tuple[Made, ...]
    tars: tuple[Tar, ...]
    sources: Mapping[str, tuple[str, ...]]

    @property
    def snapshots(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(tar.snapshot for tar in self.tars))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> "Lineage":
        """Raises ValueError where it is none."""
        try:
            values = json.loads(text)
            return Lineage(
                tuple(Made(**made) for made in values["outputs"]),
                tuple(Tar(**tar) for tar in values["tars"]),
                {name: tuple(digests) for name, digests in values["sources"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a lineage: {error}") from error


def behind(home: Path, receipts: Iterable[Receipt]) -> dict[tuple[str, str], Receipt | None]:
    """The receipts of these outputs and of all that they were made from, by (stage, fingerprint).

    Upstream first; None for one that is gone.
    """
    found: dict[tuple[str, str], Receipt | None] = {}

    def add(stage: str, fingerprint: str, receipt: Receipt | None) -> None:
        if (stage, fingerprint) in found:
            return
        inputs = receipt.input_fingerprints if receipt else {}
        for name in sorted(inputs):
            for each in inputs[name]:
                if name not in NO_OUTPUTS:
                    add(name, each, readable_receipt(home / name / each))
        found[stage, fingerprint] = receipt

    for receipt in receipts:
        add(receipt.stage, receipt.fingerprint, receipt)
    return found


def lineage_of(receipts: Mapping[tuple[str, str], Receipt | None]) -> Lineage:
    """From what `behind` found."""
    outputs, tars = [], []
    sources: dict[str, set[str]] = {}
    for (stage, fingerprint), receipt in receipts.items():
        if receipt is None:
            outputs.append(Made(stage, fingerprint))
            continue
        outputs.append(Made(stage, fingerprint, receipt.snapshot, receipt.digest))
        tars += [
            Tar(receipt.snapshot, entry.path, entry.sha256, entry.bytes)
            for entry in receipt.files
            if entry.path.endswith(".tar")
        ]
        for name, digests in receipt.inputs.items():
            if name in NO_OUTPUTS:
                sources.setdefault(name, set()).update(digests)
    return Lineage(tuple(outputs), tuple(tars), {name: tuple(sorted(s)) for name, s in sources.items()})


def is_registered(home: Path, what: str, uri: str | None = None, *, name: str) -> bool:
    """Whether it is an alias, or the number of a version that there is: a snapshot may be a number, too."""
    registry = registry_of(home, uri, name)
    with registry.tracker.answering():
        return what in ALIASES or any(version.version == what for version in registry.versions())


def lineage_of_version(
    home: Path, reference: str, uri: str | None = None, *, name: str
) -> tuple[ModelVersion, Lineage]:
    """A version or alias, and the lineage that was registered with it. ConfigError where it has none."""
    registry = registry_of(home, uri, name)
    with registry.tracker.answering():
        version = registry.version(reference)
        if (lineage := _logged(registry, version)) is None:
            raise ConfigError(
                f"{version.uri} has no lineage that can be read: an older version of Straightshot registered"
                " it, or its MLflow run is gone"
            )
    return version, lineage


def descendants(home: Path, what: str, uri: str | None = None, *, name: str) -> list[ModelVersion]:
    """The versions that `what` is behind, the newest first. Raises ConfigError where there is none.

    what: a snapshot, a tar's name, an output's fingerprint, or a digest or hash (its first digits do).
    """
    registry = registry_of(home, uri, name)
    with registry.tracker.answering():
        lineages = [(version, _logged(registry, version)) for version in registry.versions()]
    found = [version for version, lineage in lineages if lineage and made_from(lineage, what)]
    if not found:
        raise ConfigError(
            f"no model '{name}' in {registry.tracker.uri} was made from '{what}'; give a version, a snapshot,"
            f" a tar's name, or {SHORTEST_HASH} digits or more of a hash"
        )
    return found


def made_from(lineage: Lineage, what: str) -> bool:
    """Whether `what` is behind it: a snapshot, a tar's name or hash, an output's fingerprint, a digest."""
    names = {*lineage.snapshots, *(tar.name for tar in lineage.tars)}
    hashes = [tar.sha256 for tar in lineage.tars]
    hashes += [text for made in lineage.outputs for text in (made.fingerprint, made.digest)]
    hashes += [digest for digests in lineage.sources.values() for digest in digests]
    return what in names or (len(what) >= SHORTEST_HASH and any(h.startswith(what) for h in hashes))


def _logged(registry: Registry, version: ModelVersion) -> Lineage | None:
    text = registry.logged_text(version, LINEAGE_FILE)
    try:
        return Lineage.from_json(text) if text is not None else None
    except ValueError:
        return None


def summary(lineage: Lineage) -> dict[str, Any]:
    """Stage -> fingerprints, for a tag of the version."""
    stages: dict[str, list[str]] = {}
    for made in lineage.outputs:
        stages.setdefault(made.stage, []).append(made.fingerprint)
    return stages
