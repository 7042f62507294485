"""Who works on an output: one writer, many readers; each is a small JSON object with a heartbeat.

A writer holds `<output>.lock`. A run that reads an output holds `<output>.reader-<run>`; who is to replace
the output holds `<output>.swap` while no living reader is there (`exclusive`). A second writer gets
StageBusy, which names the owner. A dead owner's lock is taken over: at once when its process is gone from
this host, after STALE_SECONDS without a heartbeat when it was on another.

They run on any `Store`, by conditional put alone. filelock's SoftFileLease (4.2, measured) does not cover
what is needed here: a killed owner that nobody has waited for (a zombie) keeps its lease; an owner on another
host that has been silent for a year is waited for a whole lease from the first look, since a contender trusts
only its own clock; an empty marker is never taken over; its record has no room for the run and its work; and
it needs a file system. filelock guards the conditional writes of `LocalStore`.

What is not promised. An owner that slept (a suspended host, a stalled mount) for longer than STALE_SECONDS
may wake beside its successor: it finds out before it writes its receipt, and since both write the same bytes
by renames, no output is torn. The clocks of two hosts, or of a host and its file server, must agree to less
than STALE_SECONDS - HEARTBEAT_SECONDS. Hosts are told apart by their names: two containers that share a name
and not their process ids would take each other for dead. On NFS everything rests on its locks (NFSv4, or v3
with lockd) and on a file's attributes being seen by other hosts within that time.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil

from pipelines.errors import StageBusy
from pipelines.store.mirror import store_at
from pipelines.store.store import Store, StoreBusy, Stored

READER = ".reader-"  # between an output and a run that reads it, in the key of its mark
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
READERS_SECONDS = 1.0  # between two looks at whether an output still has readers
SWAP_SECONDS = 60.0  # how long a reader waits for a swap, which takes two renames


@dataclass(frozen=True)
class Owner:
    """Who holds a lock. `born` tells a recycled process id from the owner's."""

    pid: int
    host: str
    born: float  # the process's start, seconds since the epoch
    run_id: str
    work: str = ""  # what it makes, such as "filter 0123456789abcdef"

    @staticmethod
    def me(run_id: str, work: str = "") -> "Owner":
        """This process."""
        pid = os.getpid()
        return Owner(pid, socket.gethostname(), psutil.Process(pid).create_time(), run_id, work)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def alive(self, heartbeat: float) -> bool:
        """Whether the owner still runs; `heartbeat` is its last sign of life, seconds since the epoch."""
        if self.host != socket.gethostname():
            return time.time() - heartbeat < STALE_SECONDS
        try:
            process = psutil.Process(self.pid)
            recycled = abs(process.create_time() - self.born) >= 1.0
            return not recycled and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class Lease:
    """A claim on one key of a store, kept alive by a heartbeat from `start` to `release`."""

    def __init__(self, store: Store, key: str, owner: Owner) -> None:
        self.store = store
        self.key = key
        self.owner = owner
        self._tag: str | None = None
        self._beats = 0
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> Owner | None:
        """Take the key, from a dead owner if need be. Returns the living owner if there is one."""
        while True:
            stored = self.store.read(self.key)
            owner = _living(stored)
            if owner is not None and owner != self.owner:
                return owner
            if stored is not None and owner is not None:  # ours: a service whose answer was lost
                self._tag = stored.tag
            else:
                self._tag = self.store.put(self.key, self._content(), if_match=stored.tag if stored else None)
            if self._tag is not None:
                self._start()
                return None

    def held(self) -> bool:
        """Whether the claim still stands: nobody took it over while this process slept."""
        owner = _owner_in(self.store.read(self.key))
        return owner is not None and owner.run_id == self.owner.run_id

    def release(self) -> None:
        """Stop the heartbeat and give the key back, unless it was taken over."""
        self._released.set()
        if self._thread is not None:
            self._thread.join()
        if self._tag is not None:
            self.store.delete(self.key, if_match=self._tag)

    def _start(self) -> None:
        name = f"heartbeat-{self.key}"
        self._thread = threading.Thread(target=self._beat, name=name, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # a stalled mount, a busy guard: the next beat may get through
                self._beats += 1
                tag = self.store.put(self.key, self._content(), if_match=self._tag)
                if tag is None and not self.held():
                    return
                stored = self.store.read(self.key) if tag is None else None
                self._tag = tag or (stored.tag if stored else None)

    def _content(self) -> bytes:
        return json.dumps({**asdict(self.owner), "beats": self._beats}).encode()


def lock_owner(path: Path) -> Owner | None:
    """The living owner of the lock at `path`, if there is one."""
    return owner_of(store_at(path.parent), path.name)


def owner_of(store: Store, key: str) -> Owner | None:
    """The living owner of the lock under `key`, if there is one."""
    return _living(store.read(key))


@contextmanager
def lock(path: Path, run_id: str, work: str) -> Iterator[Lease]:
    """Hold the lock at `path`; raises StageBusy naming its owner if somebody living has it."""
    with hold(store_at(path.parent), path.name, Owner.me(run_id, work)) as lease:
        yield lease


@contextmanager
def hold(store: Store, key: str, owner: Owner) -> Iterator[Lease]:
    """Hold the lock under `key`; raises StageBusy naming its owner if somebody living has it."""
    lease = Lease(store, key, owner)
    try:
        other = lease.take()
    except StoreBusy as error:
        raise StageBusy(f"{owner.work}: {error}; run again") from error
    if other is not None:
        raise StageBusy(
            f"{owner.work} is being made by {other} (run {other.run_id}); wait for it, or stop it and run"
            " again"
        )
    try:
        yield lease
    finally:
        lease.release()


@contextmanager
def reading(store: Store, output: str, owner: Owner) -> Iterator[None]:
    """Be a reader of `output`: whoever would replace it waits. Many read at the same time.

    Waits while a replacement is under way; raises StageBusy if that does not end within SWAP_SECONDS.
    """
    living_readers(store, output)
    lease = Lease(store, f"{output}{READER}{owner.run_id}", owner)
    deadline = time.monotonic() + SWAP_SECONDS
    # First the key, then the look: of a reader and a replacer at one moment, at least one sees the other.
    lease.take()
    while (other := owner_of(store, f"{output}.swap")) is not None:
        lease.release()
        if time.monotonic() > deadline:
            raise StageBusy(f"{owner.work}: its input {output} is being replaced by {other}; run again")
        time.sleep(0.1)
        lease = Lease(store, lease.key, owner)
        lease.take()
    try:
        yield
    finally:
        lease.release()


@contextmanager
def exclusive(
    store: Store, output: str, owner: Owner, on_wait: Callable[[Sequence[Owner]], None] = lambda readers: None
) -> Iterator[None]:
    """Hold `output` when no living run reads it. on_wait: called once, with the readers, if there are any.

    New readers are let in while this waits, so that a long queue of them holds up nobody but the replacer.
    """
    waited = False
    while True:
        with hold(store, f"{output}.swap", owner):
            readers = living_readers(store, output)
            if not readers:
                yield
                return
        if not waited:
            on_wait(readers)
            waited = True
        time.sleep(READERS_SECONDS)


def living_readers(store: Store, output: str) -> list[Owner]:
    """The living readers of an output; the marks of dead ones are removed."""
    readers = []
    for key in store.keys(f"{output}{READER}"):
        stored = store.read(key)
        if (owner := _living(stored)) is not None:
            readers.append(owner)
        elif stored is not None:
            store.delete(key, if_match=stored.tag)
    return readers


def _living(stored: Stored | None) -> Owner | None:
    owner = _owner_in(stored)
    return owner if stored and owner and owner.alive(stored.modified) else None


def _owner_in(stored: Stored | None) -> Owner | None:
    """The owner that a lock names; None for what cannot be read, which then belongs to nobody."""
    try:
        values = json.loads(stored.content) if stored else {}
        return Owner(**{field.name: values[field.name] for field in fields(Owner) if field.name in values})
    except (ValueError, TypeError):
        return None
