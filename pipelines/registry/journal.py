"""The journal of a registry: every promotion, refusal, rollback and change of a gate, as an MLflow run each.

It lies beside the models, in an experiment of its own, so that all HOMEs on one server share it. A change is
written down before it is made and marked as done afterwards; whoever next holds the registry's lock makes
what a killed process had begun, and so the journal always tells what the aliases show.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from pipelines.registry.mlflow_store import Tracker
from pipelines.store.provenance import user_and_host

JOURNAL = "straightshot-registry"  # the experiment
PROMOTE, FORCE, FIRST, ROLLBACK, REFUSE, GATE = "promote", "force", "first", "rollback", "refuse", "gate"
UNREADABLE = "unreadable"
MOVES = (PROMOTE, FORCE, FIRST, ROLLBACK)  # of the champion
MODEL_TAG, NUMBER_TAG = "straightshot.model", "straightshot.number"
CHANGE_TAG, METRICS_TAG, CHECKS_TAG = "straightshot.change", "straightshot.metrics", "straightshot.checks"
STEPS = "steps"  # of an entry's protocol
TAG_LENGTH = 5000  # characters, which every MLflow store takes


@dataclass(frozen=True)
class Change:
    """One entry. before, after: the champion's version; of a refusal, after is the version refused.

    previous: the holder of the alias `previous` afterwards. digest: of the model that was judged, the one
    that was promoted or refused, or that a rollback left. metrics, protocol: of `after`. checks: name ->
    text. gate: what a change of the gate sets.
    """

    action: str
    model: str
    before: str | None = None
    after: str = ""
    previous: str | None = None
    digest: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    checks: Mapping[str, str] = field(default_factory=dict)
    gate: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0  # in the journal, from 1
    at: str = ""  # UTC, ISO 8601
    by: str = ""
    done: bool = True
    run_id: str = ""

    def same(self, other: "Change") -> bool:
        """Whether it says the same, whoever made it and when."""
        names = ("action", "model", "before", "after", "digest", "checks", "gate")
        return all(getattr(self, name) == getattr(other, name) for name in names)


class Journal:
    """The entries of one MLflow store."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def entries(self, model: str | None = None) -> list[Change]:
        """Every entry, of one registered name or of all, the oldest first; a damaged one says so."""
        query = f"tags.`{MODEL_TAG}` = '{model}'" if model else ""
        client, token = self.tracker.client, None
        runs: list[Any] = []
        while True:
            page = client.search_runs([self._experiment], query, max_results=1000, page_token=token)
            runs += page
            if not (token := page.token):
                break
        return sorted((_change(run) for run in runs), key=lambda change: (change.number, change.at))

    def begin(self, change: Change) -> Change:
        """Write down what is about to be done. Only under the registry's lock."""
        number = 1 + max((entry.number for entry in self.entries(change.model)), default=0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        change = replace(change, number=number, at=now, by=user_and_host(), done=False)
        core = {
            name: getattr(change, name)
            for name in ("action", "before", "after", "previous", "digest", "protocol", "gate", "at", "by")
        }
        tags = {
            MODEL_TAG: change.model,
            NUMBER_TAG: str(number),
            CHANGE_TAG: json.dumps(core, ensure_ascii=False),
            METRICS_TAG: json.dumps(dict(change.metrics)),
            CHECKS_TAG: _fitting(change.checks),
            "mlflow.source.name": "straightshot",
        }
        run = self.tracker.client.create_run(self._experiment, tags=tags, run_name=title(change))
        return replace(change, run_id=str(run.info.run_id))

    def finish(self, change: Change) -> None:
        """Mark it as done."""
        self.tracker.client.set_terminated(change.run_id, "FINISHED")

    @cached_property
    def _experiment(self) -> str:
        return self.tracker.experiment_named(JOURNAL)


def champions(entries: Iterable[Change]) -> list[str]:
    """The champions' versions, the oldest first, without those that were rolled back."""
    versions: list[str] = []
    for entry in entries:
        if entry.action == ROLLBACK:
            while versions and versions[-1] != entry.after:
                versions.pop()
        elif entry.action in MOVES:
            if entry.before is not None and versions[-1:] != [entry.before]:
                versions.append(entry.before)  # somebody set the alias by hand
        else:
            continue
        if versions[-1:] != [entry.after]:
            versions.append(entry.after)
    return versions


def barred(entries: Iterable[Change], digest: str | None) -> Change | None:
    """The rollback that bars a model of this content; None where there was none, or it was forced since."""
    found = None
    for entry in entries:
        if digest and entry.digest == digest:
            if entry.action == ROLLBACK:
                found = entry
            elif entry.action == FORCE:
                found = None
    return found


def title(change: Change) -> str:
    """An entry in a few words, the name of its run."""
    if change.action == GATE:
        return f"gate of {change.model}"
    moved = f"{change.before} → {change.after}" if change.before else f"version {change.after}"
    return f"{change.action} {moved} of {change.model}"


def _change(run: Any) -> Change:
    """The entry that a run holds; what cannot be read of it is said in its checks."""
    tags: Mapping[str, str] = run.data.tags
    at = datetime.fromtimestamp(run.info.start_time / 1000, UTC).isoformat(timespec="seconds")
    known: dict[str, Any] = {
        "model": tags.get(MODEL_TAG, ""),
        "run_id": str(run.info.run_id),
        "done": run.info.status == "FINISHED",
    }
    try:
        core = json.loads(tags[CHANGE_TAG])
        names = ("action", "before", "after", "previous", "digest", "protocol", "gate", "at", "by")
        known |= {name: core[name] for name in names}
        known["number"] = int(tags[NUMBER_TAG])
        known["metrics"] = {name: float(x) for name, x in json.loads(tags[METRICS_TAG]).items()}
        known["checks"] = {str(name): str(text) for name, text in json.loads(tags[CHECKS_TAG]).items()}
        return Change(**known)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        text = f"the journal's run {run.info.run_id} cannot be read ({error!r})"
        return Change(UNREADABLE, known["model"], at=at, checks={"entry": text}, run_id=known["run_id"])


def _fitting(checks: Mapping[str, str]) -> str:
    """The checks as JSON, each cut so that all fit into one tag."""
    text = json.dumps(dict(checks), ensure_ascii=False)
    if len(text) <= TAG_LENGTH:
        return text
    each = TAG_LENGTH // (2 * len(checks))
    return json.dumps({name[:each]: says[:each] for name, says in checks.items()}, ensure_ascii=False)
