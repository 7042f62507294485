"""Who is champion of a registered name: the gate's decision on a version, the moves, and what undoes them.

`champion` moves only through the gate, and the champion before it stays as `previous`. A move is written into
the journal, then made, then marked as done. The promote stage and the commands `promote`, `rollback` and
`gate` all pass through here.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import ConfigError, GateRefused
from pipelines.registry.gate import CHAMPION_RIVAL, Check, Decision, GateConfig, Rival, decide
from pipelines.registry.journal import (
    FIRST,
    FORCE,
    GATE,
    PROMOTE,
    REFUSE,
    ROLLBACK,
    STEPS,
    UNREADABLE,
    Change,
    Journal,
    barred,
    champions,
)
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    REGISTERED_NAME,
    Registry,
    registry_of,
)
from pipelines.registry.model_version import ModelVersion
from pipelines.registry.stored_gate import GATE_TAG, StoredGate, read_stored_gate, write_stored_gate
from pipelines.registry.verdicts import differences
from pipelines.store.faults import fault_point

if TYPE_CHECKING:
    from components.evaluation.bootstrap import Interval


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


class Champions:
    """The champions of one registered name, under the registry's lock (see `changing`)."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.journal = Journal(registry.tracker)
        self.entries = self.journal.entries(registry.name)

    def decide(self, version: ModelVersion, gate: GateConfig, *, first: bool = False) -> Decision:
        """The gate's decision; the champion itself is compared with the one before it."""
        assert version.quality is not None
        earlier = [self._rival(version, other) for other in self._before(version)]
        champion = self.registry.holder(PREVIOUS if CHAMPION in version.aliases else CHAMPION)
        rival = self._rival(version, champion, CHAMPION_RIVAL) if champion else None
        if champion is None and earlier:
            reason = f"nobody is champion now, though {earlier[-1].name} was: nothing to compare with"
            rival = Rival(CHAMPION_RIVAL, None, unreadable=reason)
        decision = decide(version.quality, rival, gate, earlier=earlier, first=first)
        checks = list(decision.checks)
        if CHAMPION not in version.aliases and (back := barred(self.entries, version.digest)):
            text = f"version {version.version} was rolled back at {back.at} by {back.by}"
            checks.append(Check("rolled_back", False, text))
        notes = (*version.notes, *(champion.notes if champion and champion.quality else ()))
        checks += [Check("registered", None, note) for note in notes]
        return replace(decision, checks=tuple(checks))

    def move(
        self, candidate: ModelVersion, decision: Decision | None, *, force: bool = False, first: bool = False
    ) -> Promotion:
        """Make the version champion if the gate passes it or is overruled. Raises GateRefused."""
        aliases = self.registry.aliases()
        before = aliases.get(CHAMPION)
        if before == candidate.version:
            return Promotion(before, before, decision, candidate.notes)
        refused = decision is not None and not decision.passed
        change = self._change(REFUSE, candidate, before, candidate.version, decision)
        if decision is not None and refused and not force:
            self._refuse(change, decision, before)
        action = FORCE if refused else FIRST if first else PROMOTE
        self._make(replace(change, action=action, previous=before or aliases.get(PREVIOUS)))
        return Promotion(candidate.version, before, decision, candidate.notes)

    def rollback(self) -> Promotion:
        """Make the champion before this one champion again. Raises ConfigError when there is none."""
        champion, previous = self.registry.holder(CHAMPION), self.registry.aliases().get(PREVIOUS)
        if champion is None or previous is None:
            reason = (
                f"version {champion.version} is the first champion" if champion else "there is no champion"
            )
            where = f"'{self.registry.name}' in {self.registry.tracker.uri}"
            raise ConfigError(f"nothing to roll back to: {reason} of {where}")
        change = self._change(ROLLBACK, champion, champion.version, previous, None)
        history = champions([*self.entries, change])
        self._make(replace(change, previous=history[-2] if len(history) > 1 else None))
        back = self.registry.version(previous)
        return Promotion(previous, champion.version, notes=back.notes)

    def gate(self, otherwise: GateConfig) -> StoredGate:
        """The gate that is stored with the name; where there is none, the default one beside a champion (by
        hand, or of an older version), else `otherwise` as the first.
        """
        stored = read_stored_gate(self.registry)
        has_champion = stored is None and self.registry.holder(CHAMPION) is not None
        return stored or StoredGate(1, default_gate() if has_champion else otherwise)

    def keep_gate(self, gate: StoredGate) -> None:
        """Store the first gate of the name, unless one is stored."""
        if GATE_TAG not in self.registry.tags():
            self.set_gate(gate.limits)

    def set_gate(self, limits: GateConfig) -> StoredGate:
        """Store another gate with the name."""
        gate = StoredGate(1 + sum(entry.action == GATE for entry in self.entries), limits)
        self._make(Change(GATE, self.registry.name, gate=gate.as_dict()))
        return gate

    def finish_begun(self) -> None:
        """Make what a killed process had written down and not made."""
        for entry in self.entries:
            if not entry.done and entry.action != UNREADABLE:
                self._apply(entry)

    def _before(self, version: ModelVersion) -> list[ModelVersion]:
        """The versions that were champion and were not rolled back, without this one."""
        numbers = dict.fromkeys(champions(self.entries))
        versions = {other.version: other for other in self.registry.versions()}
        known = [versions[number] for number in numbers if number in versions]
        return [other for other in known if other.version != version.version]

    def _rival(self, version: ModelVersion, other: ModelVersion, name: str = "") -> Rival:
        unreadable = "; ".join(other.notes) or f"version {other.version} was registered without an evaluation"

        @cache
        def pairs() -> "Mapping[str, Interval]":
            return differences(self.registry.verdicts(version), self.registry.verdicts(other))

        return Rival(name or f"version {other.version}", other.quality, pairs, unreadable)

    def _refuse(self, change: Change, decision: Decision, before: str | None) -> None:
        """Write the refusal down, once, and raise it."""
        if not self.entries or not self.entries[-1].same(change):
            self.journal.finish(self.journal.begin(change))
        stays = f"version {before} stays champion" if before else "there is no champion"
        only = [check.name for check in decision.checks if check.failed] in (["champion"], ["comparison"])
        end = "--first` accepts it all the same" if only else "--force` overrules"
        raise GateRefused(
            f"gate refused version {change.after} of '{change.model}': {decision.refusal}; {stays};"
            f" `straightshot promote {change.after} {end}"
        )

    def _change(
        self, action: str, judged: ModelVersion, before: str | None, after: str, decision: Decision | None
    ) -> Change:
        quality = judged.quality if after == judged.version else self.registry.version(after).quality
        return Change(
            action,
            self.registry.name,
            before,
            after,
            digest=judged.digest or "",
            metrics=quality.numbers if quality else {},
            protocol={**quality.protocol, STEPS: quality.steps} if quality else {},
            checks={check.name: check.text for check in decision.checks} if decision else {},
        )

    def _make(self, change: Change) -> None:
        """Write the change down, make it, mark it as done."""
        fault_point("promote.before_intent")
        begun = self.journal.begin(change)
        fault_point("promote.after_intent")
        self._apply(begun)
        self.entries.append(replace(begun, done=True))

    def _apply(self, change: Change) -> None:
        """Have the registry show what an entry says; doing it again changes nothing more."""
        self.registry.still_locked()
        if change.action == GATE:
            write_stored_gate(self.registry, StoredGate.of(change.gate))
        elif change.action != REFUSE:
            self.registry.set_alias(PREVIOUS, change.previous)
            fault_point("promote.between_aliases")
            self.registry.set_alias(CHAMPION, change.after)
        fault_point("promote.before_done")
        self.journal.finish(change)


@contextmanager
def changing(registry: Registry) -> Iterator[Champions]:
    """Alone with a registered name, what was begun before finished. Raises StageBusy after a minute."""
    with registry.locked():
        champions_of_it = Champions(registry)
        champions_of_it.finish_begun()
        yield champions_of_it


def promote(
    home: Path,
    reference: str = CHALLENGER,
    uri: str | None = None,
    *,
    name: str = REGISTERED_NAME,
    force: bool = False,
    first: bool = False,
) -> Promotion:
    """Make a version or alias champion by hand, through the gate that is stored with the name.

    force: also if the gate refuses. first: also if nothing compares it with the champion. Raises GateRefused,
    or ConfigError for a version that is not there.
    """
    registry = _known(home, uri, name)
    with changing(registry) as its:
        version = registry.version(reference)
        decision = None
        if version.quality is not None:
            decision = its.decide(version, its.gate(default_gate()).limits, first=first)
        elif not force:
            reason = "; ".join(version.notes) or (
                f"version {version.version} of '{name}' was registered without an evaluation"
            )
            raise GateRefused(
                f"{reason}, so the gate cannot judge it; promote it with --force if you know it"
            )
        return its.move(version, decision, force=force, first=first)


def rollback(home: Path, uri: str | None = None, *, name: str = REGISTERED_NAME) -> Promotion:
    """Make `previous` champion again. Raises ConfigError when there is none."""
    with changing(_known(home, uri, name)) as its:
        return its.rollback()


def set_gate(
    home: Path,
    change: Callable[[GateConfig], GateConfig],
    uri: str | None = None,
    *,
    name: str = REGISTERED_NAME,
) -> StoredGate:
    """Store `change(the limits now)` with a registered name; of the default ones where none can be read."""
    with changing(_known(home, uri, name)) as its:
        stored = None
        with suppress(ConfigError):  # damaged, which is what this sets right
            stored = read_stored_gate(its.registry)
        return its.set_gate(change(stored.limits if stored else default_gate()))


def stored_gate(home: Path, uri: str | None = None, *, name: str = REGISTERED_NAME) -> StoredGate | None:
    """The gate of a registered name; None where none was stored yet."""
    registry = registry_of(home, uri, name)
    with registry.tracker.answering():
        return read_stored_gate(registry)


def history(home: Path, uri: str | None = None, *, name: str | None = None) -> list[Change]:
    """Every promotion, refusal, rollback and change of a gate, the oldest first; empty where nothing was."""
    tracker = Tracker(home, uri)
    if tracker.empty:
        return []
    with tracker.answering():
        return Journal(tracker).entries(name)


def default_gate() -> GateConfig:
    """The limits where nobody has set any."""
    return GateConfig.model_validate({})


def _known(home: Path, uri: str | None, name: str) -> Registry:
    """The registry of a name that is there. Raises ConfigError before anything is made."""
    registry = registry_of(home, uri, name)
    with registry.tracker.answering():
        if not registry.exists():
            raise ConfigError(f"no model '{name}' in {registry.tracker.uri}: there is no champion of it")
    return registry
