"""Who changes a registered model: one at a time, over all HOMEs and hosts that share the MLflow store.

MLflow has no lock and no conditional write. A tag of the registered model with a key of its owner's is all
that this needs: whoever wants the lock writes its tag, then looks. Alone, it holds the lock; beside another
living owner it takes its tag back and tries again a little later. Of two that write at one moment at least
one sees the other, since each looks after it has written. A dead owner's tag is removed by the next one, by
the rules of store/locks.py.

What is not promised is what locks.py does not promise either: an owner that slept for longer than
STALE_SECONDS may wake beside its successor. It asks `still_held` before every move.
"""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from pipelines.errors import StageBusy, StageFailed
from pipelines.store.locks import HEARTBEAT_SECONDS, Owner

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_TAG = "straightshot.lock."  # then the owner's run id: who it is, and when it was last seen
LOCK_SECONDS = 60  # a promotion takes a few seconds
RETRY_SECONDS = (0.1, 0.4)  # by chance between these, so that two do not keep meeting


@dataclass
class RegistryLock:
    """The claim of one process on a registered model that exists."""

    client: "MlflowClient"
    name: str
    owner: Owner
    _released: threading.Event = field(default_factory=threading.Event)

    def take(self) -> Owner | None:
        """Take the lock; returns the living owner if there is one."""
        if (other := self._other()) is not None:
            return other
        self._beat()
        other = self._other()
        if other is not None:
            self._delete(self.owner.run_id)
        return other

    def still_held(self) -> None:
        """Raise StageFailed where somebody took the lock over while this process slept."""
        if self.owner.run_id not in self._tags():
            raise StageFailed(
                f"the lock of '{self.name}' was taken over while this process was suspended; run again"
            )

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Show signs of life until the end, then give the lock back."""
        thread = threading.Thread(target=self._keep_alive, name=f"lock-{self.name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._released.set()
            thread.join()
            self._delete(self.owner.run_id)

    def _keep_alive(self) -> None:
        from mlflow.exceptions import MlflowException

        while not self._released.wait(HEARTBEAT_SECONDS):
            with suppress(MlflowException):  # a server that is away for a while: the next may get through
                if self.owner.run_id in self._tags():
                    self._beat()

    def _beat(self) -> None:
        text = json.dumps({**asdict(self.owner), "seen": time.time()})
        self.client.set_registered_model_tag(self.name, f"{LOCK_TAG}{self.owner.run_id}", text)

    def _other(self) -> Owner | None:
        """A living owner that is not this one; the tags of dead ones are removed."""
        for run_id, text in self._tags().items():
            if run_id == self.owner.run_id:
                continue
            other = _living(text)
            if other is not None:
                return other
            self._delete(run_id)
        return None

    def _tags(self) -> dict[str, str]:
        """Run id of an owner -> what its tag says."""
        tags = self.client.get_registered_model(self.name).tags
        return {key.removeprefix(LOCK_TAG): tags[key] for key in tags if key.startswith(LOCK_TAG)}

    def _delete(self, run_id: str) -> None:
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):  # another one removed it
            self.client.delete_registered_model_tag(self.name, f"{LOCK_TAG}{run_id}")


@contextmanager
def registry_lock(client: "MlflowClient", name: str, owner: Owner, where: str) -> Iterator[RegistryLock]:
    """Hold the lock of a registered model. Raises StageBusy that names its owner after LOCK_SECONDS."""
    lock, deadline = RegistryLock(client, name, owner), time.monotonic() + LOCK_SECONDS
    while (other := lock.take()) is not None:
        if time.monotonic() > deadline:
            raise StageBusy(f"'{name}' in {where} is being changed by {other}; run again when it is done")
        time.sleep(random.uniform(*RETRY_SECONDS))  # the one kind of randomness that must not repeat
    with lock.kept_alive():
        yield lock


def _living(text: str) -> Owner | None:
    """The owner that a tag names, if it is alive; None too for what cannot be read."""
    try:
        values: dict[str, Any] = json.loads(text)
        owner = Owner(**{f.name: values[f.name] for f in fields(Owner) if f.name in values})
        return owner if owner.alive(float(values["seen"])) else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
