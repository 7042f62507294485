"""A registered version as its tags describe it, read tolerantly: nothing that they hold makes it fail.

What another version of this project registered has fewer or more metrics, or hashes of its weights only; a
version's `notes` say what is different.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipelines.registry.packaging import MODEL_IN_PACKAGE
from pipelines.registry.quality import Quality

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

DIGEST_TAG = "straightshot.digest"
FILES_TAG = "straightshot.files"  # every file of the package, see packaging.hashes_of
QUALITY_TAG = "straightshot.quality"
WEIGHTS_TAG = "straightshot.weights"  # of an older version of this project: relative path -> sha256
SNAPSHOT_TAG, LINEAGE_TAG = "snapshot", "straightshot.lineage"
CARD_TAG = "straightshot.card"  # the id of the MLflow run with the version's card and lineage
WITHDRAWN_TAG = "straightshot.withdrawn"  # JSON, see withdrawn_in
VERDICTS_TAG = "straightshot.verdicts"  # the id of the MLflow run with the verdicts behind the quality


@dataclass(frozen=True)
class ModelVersion:
    """One registered model. `quality` is None where it has none that can be read."""

    name: str
    version: str
    aliases: tuple[str, ...]
    created_at: str  # UTC, ISO 8601
    digest: str | None  # of the model folder's content
    files: Mapping[str, str]  # of its package: relative path -> sha256; empty: they cannot be read
    quality: Quality | None
    run_id: str | None
    snapshot: str = ""  # or several, joined by '+'
    withdrawn: "WithdrawnRecords | None" = None
    verdicts_run: str | None = None  # the MLflow run that has the verdicts behind `quality`
    notes: tuple[str, ...] = ()  # one line each: what cannot be read, or is of another version's form

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class WithdrawnRecords:
    """What a registered version's tag says: how many records it was trained on were withdrawn since; when
    that was noted, a date in UTC.
    """

    records: int
    at: str

    @property
    def note(self) -> str:
        records = "1 record that was" if self.records == 1 else f"{self.records} records that were"
        return f"trained on {records} withdrawn since (noted {self.at})"

    def to_tag(self) -> str:
        return json.dumps(asdict(self))


def withdrawn_in(tags: Mapping[str, str]) -> WithdrawnRecords | None:
    """What the tags of a registered version say of withdrawn records; None when there is nothing to say."""
    if WITHDRAWN_TAG not in tags:
        return None
    try:
        values = json.loads(tags[WITHDRAWN_TAG])
        return WithdrawnRecords(int(values["records"]), str(values["at"]))
    except (ValueError, TypeError, KeyError):
        return WithdrawnRecords(0, "in a form that cannot be read")


def read_version(registered: "MlflowVersion", name: str, aliases: Mapping[str, str]) -> ModelVersion:
    """One version as MLflow has it; never raises for what its tags hold. aliases: name -> version number."""
    tags, number = registered.tags, str(registered.version)  # an int on SQLite
    notes: list[str] = []
    quality: Quality | None = None
    if QUALITY_TAG in tags:
        try:
            quality = Quality.from_json(tags[QUALITY_TAG])
            notes.append(quality.note)
        except ValueError as error:
            notes.append(f"its metrics cannot be read ({error})")
    withdrawn = withdrawn_in(tags)
    notes.append(withdrawn.note if withdrawn else "")
    if not (files := _hashes(tags)):
        notes.append("the hashes of its files cannot be read")
    created = datetime.fromtimestamp(registered.creation_timestamp / 1000, UTC)
    return ModelVersion(
        name=name,
        version=number,
        aliases=tuple(sorted(alias for alias, holder in aliases.items() if holder == number)),
        created_at=created.isoformat(timespec="seconds"),
        digest=tags.get(DIGEST_TAG),
        files=files,
        quality=quality,
        run_id=registered.run_id,
        snapshot=tags.get(SNAPSHOT_TAG, ""),
        withdrawn=withdrawn,
        verdicts_run=tags.get(VERDICTS_TAG),
        notes=tuple(f"version {number} of '{name}': {note}" for note in notes if note),
    )


def _hashes(tags: Mapping[str, str]) -> dict[str, str]:
    """Of the files of a version's package, as far as they were hashed; empty where that cannot be read."""
    if FILES_TAG not in tags:
        weights = _json_or_none(tags.get(WEIGHTS_TAG, ""))
        found = weights.items() if isinstance(weights, dict) else ()
        return {f"{MODEL_IN_PACKAGE}{path}": str(digest) for path, digest in found}
    files = _json_or_none(tags[FILES_TAG])
    return {path: str(digest) for path, digest in files.items()} if isinstance(files, dict) else {}


def _json_or_none(text: str) -> Any:
    """The value of a JSON text; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None
