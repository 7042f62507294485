"""Records that end the process which examines them: found, quarantined, and their neighbours kept.

A decoder may hang on bytes that were made for it, ask for all memory, or crash. Watching each record from
another process costs too much where all is well, so a worker examines records itself, under a limit of CPU
time, and notes which fragment it is in (`Attempts`). If it dies, Ray starts it again, it finds the note, and
examines that fragment through a process that may die (`GuardedExaminer`). The same records are quarantined
however the work is shared out: both ways have the same limits.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from components.corpus.fragments import RawRecord
from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.filtering.examine import Kept, Rejected

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

TRIES = 2  # processes that a record may end before it is to blame: the first may have been ended from outside
WALL = 10  # seconds that pass for one of CPU time on a crowded machine; after more, it sleeps for ever
LEAST_WALL_SECONDS = 300.0  # before that is believed; also until the process has imported what it needs
UNGUARDED_DEATHS = 2  # of workers in a run, after which all fragments are guarded: Ray restarts few times

T = TypeVar("T")
Examine = Callable[[RawRecord, str], Kept | Rejected]


class RecordLimits(BaseModel):
    """What examining one record may take. A record that takes more is quarantined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu_seconds: float = Field(default=60.0, gt=0, description="CPU time, seconds")
    memory_bytes: int = Field(
        default=4 * 2**30, ge=2**20, description="memory, bytes, beyond what its process has at the start"
    )


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Within it, this process ends (SIGPROF) once it has used so much CPU time; nothing waits meanwhile."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextmanager
def limited(
    examine: Callable[[RawRecord, str], T], limits: RecordLimits, guarded: bool
) -> Iterator[Callable[[RawRecord, str], T | Rejected]]:
    """`examine` under the limit of CPU time in this process, or guarded under both in one of its own."""
    if guarded:
        with closing(GuardedExaminer(examine, limits)) as examiner:
            yield examiner
        return

    def here(record: RawRecord, key: str) -> T:
        with cpu_limit(limits.cpu_seconds):
            return examine(record, key)

    yield here


class Attempts:
    """Notes, in a folder that all workers see, of the fragments that were begun and are not finished."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.begun, self.died, self.run_id = folder / "begun", folder / "died", run_id
        for notes in (self.begun, self.died):
            notes.mkdir(parents=True, exist_ok=True)

    def begin(self, name: str) -> bool:
        """Note that the fragment is begun. Returns whether it is to be guarded."""
        note = self.begun / name
        before = note.read_text() if note.exists() else None
        if before == self.run_id:  # not one that was merely under way when another run was stopped
            (self.died / f"{self.run_id}-{name}").touch()
        note.write_text(self.run_id)
        return before is not None or len(list(self.died.glob(f"{self.run_id}-*"))) >= UNGUARDED_DEATHS

    def end(self, name: str) -> None:
        """The fragment is finished."""
        (self.begun / name).unlink(missing_ok=True)


class GuardedExaminer(Generic[T]):
    """Examines records in a process of its own, which is started again when one of them ends it.

    examine: picklable.
    """

    def __init__(self, examine: Callable[[RawRecord, str], T], limits: RecordLimits) -> None:
        self.examine, self.limits = examine, limits
        self._process: BaseProcess | None = None
        self._connection: Connection[Any, Any] | None = None

    def __call__(self, record: RawRecord, key: str) -> T | Rejected:
        """What `examine` makes of the record, or that it is quarantined."""
        how = ""
        for _ in range(TRIES):
            tried = self._tried(record, key)
            if not isinstance(tried, str):
                return tried
            if (how := tried) == self._too_slow:  # which nobody outside is to blame for
                break
        return Rejected(key, Rejection(Reason.QUARANTINED, how), record.alt_text, record.url)

    def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._connection = self._process = None

    def _tried(self, record: RawRecord, key: str) -> T | str:
        """The same, or how the record ended the process."""
        connection = self._connection or self._start()
        try:
            connection.send((record, key))
            patience = max(LEAST_WALL_SECONDS, WALL * self.limits.cpu_seconds)
            if connection.poll(patience):
                examined: T = connection.recv()
                return examined
            how = f"not done after {patience:g} s"
        except (EOFError, OSError):  # it died
            assert self._process is not None
            self._process.join()
            how = self._cause(self._process.exitcode or 0)
        self.close()
        return how

    def _cause(self, exit_code: int) -> str:
        if exit_code == -signal.SIGPROF:
            return self._too_slow
        return f"ended its process: {signal.Signals(-exit_code).name if exit_code < 0 else exit_code}"

    @property
    def _too_slow(self) -> str:
        return f"not done after {self.limits.cpu_seconds:g} s of CPU time"

    def _start(self) -> "Connection[Any, Any]":
        import multiprocessing

        context = multiprocessing.get_context("spawn")  # this process has threads: no fork of it is safe
        connection, other_end = context.Pipe()
        process = context.Process(target=_serve, args=(other_end, self.examine, self.limits), daemon=True)
        process.start()
        other_end.close()
        self._connection, self._process = connection, process
        if not connection.poll(LEAST_WALL_SECONDS):
            raise RuntimeError(f"the process that examines records did not start in {LEAST_WALL_SECONDS:g} s")
        connection.recv()
        return connection


def _serve(
    connection: "Connection[Any, Any]", examine: Callable[[RawRecord, str], Any], limits: RecordLimits
) -> None:
    """Examine what comes, until the other side is gone."""
    _limit_memory(limits.memory_bytes)
    connection.send("ready")
    while True:
        try:
            record, key = connection.recv()
        except EOFError:
            return
        with cpu_limit(limits.cpu_seconds):
            examined = examine(record, key)
        connection.send(examined)


def _limit_memory(more: int) -> None:
    """Let this process have so many bytes more than it has now; where it asks for more, MemoryError."""
    import resource

    import psutil

    limit = psutil.Process().memory_info().vms + more
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
