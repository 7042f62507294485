"""Whether the cluster has room for processes that wait to start.

Where it has none, Ray waits for ever for a node to come.
"""

import time
from collections.abc import Mapping

from pipelines.errors import StageFailed
from pipelines.execution.engine import GO_ON, Engine
from pipelines.execution.ray_connection import NO_PROGRESS_SECONDS

LOOK_SECONDS = 3.0  # between two looks at what the cluster has
LOST_NODE_SECONDS = 20.0  # to wait for room that was there; a cluster that grows takes minutes to have it


class Room:
    """The room of `processes` that get `each`, Ray's resources. name: of what waits, in the error."""

    def __init__(self, engine: Engine, name: str, processes: int, each: Mapping[str, float]) -> None:
        self._engine, self._name, self._processes, self._each = engine, name, processes, each
        self._looked = time.monotonic()
        self._missing_since: float | None = None
        self._patience: float = NO_PROGRESS_SECONDS

    def check(self) -> None:
        """To be called again and again. Raises StageFailed when there has been none for too long."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if self._engine.has_room(self._processes, self._each):
            self._missing_since, self._patience = None, LOST_NODE_SECONDS
            return
        self._missing_since = self._missing_since or now
        if now - self._missing_since > self._patience:
            each = " and ".join(f"{amount:g} {kind}" for kind, amount in self._each.items())
            needed = each if self._processes == 1 else f"{self._processes} processes of {each} each"
            raise StageFailed(
                f"{self._name}: the cluster has no room for {needed}, after the loss of a node perhaps;"
                f" {GO_ON}"
            )
