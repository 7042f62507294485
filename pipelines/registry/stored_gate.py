"""The gate of a registered name: kept with the name, versioned, and no business of a candidate's config.

Otherwise a careless experiment would bring its own low limits along and pass by them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pipelines.config_draft import ConfigDraft
from pipelines.errors import ConfigError
from pipelines.registry.gate import GateConfig
from pipelines.registry.model_registry import Registry

GATE_TAG = "straightshot.gate"  # of the registered model; versions of an older form carry one each


@dataclass(frozen=True)
class StoredGate:
    """Limits, and how often they were set: 1 is what the first promotion of the name brought."""

    version: int
    limits: GateConfig
    note: str = ""  # what of it this version of Straightshot does not know, and so does not check

    def as_dict(self) -> dict[str, Any]:
        return {"version": self.version, "limits": self.limits.model_dump()}

    @staticmethod
    def of(values: Mapping[str, Any]) -> "StoredGate":
        """From `as_dict`, of this version or another. Raises ValueError where it is none."""
        try:
            limits, version = dict(values["limits"]), int(values["version"])
            unknown = sorted(set(limits) - set(GateConfig.model_fields))
            known = {name: value for name, value in limits.items() if name not in unknown}
            note = f"it also has {', '.join(unknown)}, not checked by this version" if unknown else ""
            return StoredGate(version, GateConfig.model_validate(known), note)
        except (KeyError, TypeError, AttributeError, ValidationError) as error:
            raise ValueError(f"not a gate: {error}") from error


def read_stored_gate(registry: Registry) -> StoredGate | None:
    """The gate of the name; None where none was stored. Raises ConfigError where it cannot be read."""
    text = registry.tags().get(GATE_TAG)
    if text is None:
        return None
    try:
        return StoredGate.of(json.loads(text))
    except ValueError as error:
        raise ConfigError(
            f"the gate stored with '{registry.name}' in {registry.tracker.uri} cannot be read; set it again:"
            " `straightshot gate set min_prompt_following=…` (all other limits as by default)"
        ) from error


def write_stored_gate(registry: Registry, gate: StoredGate) -> None:
    registry.set_tag(GATE_TAG, json.dumps(gate.as_dict()))


def with_limits(now: GateConfig, texts: Iterable[str]) -> GateConfig:
    """The gate with `limit=value` each applied. Raises ConfigError that names the nearest right limit."""
    draft = ConfigDraft(GateConfig, now.model_dump(), {(): "the gate"})
    for text in texts:
        draft.override(text, "gate set", "limit=value, such as min_prompt_following=0.8")
    return draft.build()
