"""One owner per output: a lock file with process, host and a heartbeat.

A second run of the same thing is told who the owner is; a dead owner's lock is taken over: at once when
its process is gone from this host, after `STALE_SECONDS` without a heartbeat when it was elsewhere.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from pipelines.errors import StageBusy

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
TURN_SECONDS = 4.0  # looking at a lock takes milliseconds; a second run is to be told within 5 s


@dataclass(frozen=True)
class Owner:
    """Who holds a lock. `born` tells a recycled process id from the owner's."""

    pid: int
    host: str
    born: float  # the process's start, seconds since the epoch
    run_id: str

    @staticmethod
    def me(run_id: str) -> "Owner":
        pid = os.getpid()
        return Owner(pid, socket.gethostname(), psutil.Process(pid).create_time(), run_id)

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


def lock_owner(path: Path) -> Owner | None:
    """The living owner of the lock at `path`, if there is one."""
    try:
        owner = Owner(**json.loads(path.read_text()))
        return owner if owner.alive(path.stat().st_mtime) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


@contextmanager
def lock(path: Path, run_id: str, what: str) -> Iterator[None]:
    """Hold the lock at `path`; raises StageBusy naming its owner if somebody living has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _acquire(path, Owner.me(run_id), what)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            with suppress(FileNotFoundError):
                os.utime(path)

    thread = threading.Thread(target=beat, name=f"heartbeat-{path.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if _owned_by(path, run_id):  # not if it was taken over while this host slept
            path.unlink(missing_ok=True)


def _acquire(path: Path, me: Owner, what: str) -> None:
    """Take the lock, from a dead owner if need be. One at a time: who looks and who removes is the same."""
    claim = path.with_name(f"{path.name}.{me.pid}-{me.run_id}")
    try:
        with FileLock(path.with_name(f".{path.parent.name}.turn"), timeout=TURN_SECONDS):
            owner = lock_owner(path)
            if owner is not None:
                raise StageBusy(
                    f"{what} is being made by process {owner.pid} on {owner.host} (run {owner.run_id});"
                    f" wait for it, or stop it and run again"
                )
            claim.write_text(json.dumps(asdict(me)))
            claim.replace(path)  # the content is there at once
    except Timeout:
        raise StageBusy(f"{what}: another run is taking {path} and does not end; run again") from None
    finally:
        claim.unlink(missing_ok=True)


def _owned_by(path: Path, run_id: str) -> bool:
    try:
        return bool(json.loads(path.read_text())["run_id"] == run_id)
    except (OSError, ValueError, KeyError, TypeError):
        return False
