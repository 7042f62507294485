"""A pool of Ray workers that a data stage's tasks go through: a task in, the receipt of its part out."""

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from components.errors import one_line
from components.malloc import keep_freed_memory
from pipelines.errors import StageFailed, raise_serialized, serialize_error
from pipelines.execution.ray_connection import MOST_DETAIL, NO_PROGRESS_SECONDS
from pipelines.execution.resources import Resources
from pipelines.store.receipts import PartReceipt

WORKER_RESTARTS = 3  # a worker killed more often than this fails the stage


class Worker(Protocol):
    """What a data stage gives the engine: built once per process, then called with one task at a time."""

    def __call__(self, task: Any) -> PartReceipt: ...


def map_in_pool(
    worker: type[Worker],
    tasks: Sequence[Any],
    setup: Mapping[str, Any],
    on_done: Callable[[PartReceipt], None],
    pool: int,
    resources: Resources,
) -> tuple[list[PartReceipt], float]:
    """The receipts in task order, and the seconds of the start alone; on a Ray that was started or joined.

    pool: how many workers. See Engine.map_parts for the rest, and for what it raises.
    """
    encoded = [json.dumps({"index": i, "task": task}) for i, task in enumerate(tasks)]
    started, work = time.perf_counter(), _WorkTime()
    import ray
    from ray.data import ActorPoolStrategy
    from ray.data.exceptions import ExecutionTimeoutError

    rows = ray.data.from_items([{"task": task} for task in encoded], override_num_blocks=len(encoded))
    with warnings.catch_warnings():
        # Ray 2.60 warns of this argument, and names no other way to bound a pool's restarts.
        warnings.simplefilter("ignore", DeprecationWarning)
        results = rows.map_batches(
            _Caller,
            fn_constructor_kwargs={"worker": worker, "setup": dict(setup)},
            batch_size=1,
            compute=ActorPoolStrategy(size=pool),
            num_cpus=resources.cpus,
            num_gpus=resources.gpus or None,
            memory=resources.memory_bytes or None,
            resources=dict(resources.custom) or None,
            ray_remote_args_fn=_restarts,
        )
    receipts: dict[int, PartReceipt] = {}
    try:
        for row in results.iter_rows():
            result = json.loads(row["result"])
            raise_serialized(result)
            receipts[result["index"]] = PartReceipt.model_validate(result["receipt"])
            work.add(receipts[result["index"]].counts.in_, result["seconds"], first=result["first"])
            on_done(receipts[result["index"]])
    except ray.exceptions.RayError as error:
        raise StageFailed(worker_failure(error)) from error
    except ExecutionTimeoutError as error:
        request = ", ".join(f"{amount:g} {kind}" for kind, amount in resources.by_kind().items())
        raise StageFailed(
            f"no task ended for {NO_PROGRESS_SECONDS} s; if the cluster never has {request} free for a"
            f" worker, lower {resources.setting}"
        ) from error
    startup = max(0.0, time.perf_counter() - started - work.seconds() / pool)
    return [receipts[i] for i in range(len(encoded))], startup


def _restarts() -> dict[str, int]:
    """How often a killed worker is started again. Its task is tried again as long as there are restarts:
    while Ray has not yet noticed that a node is lost, each try fails at once.
    """
    return {"max_restarts": WORKER_RESTARTS, "max_task_retries": -1}


class _WorkTime:
    """How long the tasks of a pool took, without what a worker's first one took longer to get warm."""

    def __init__(self) -> None:
        self._firsts: list[tuple[int, float]] = []  # records and seconds
        self._later_records, self._later_seconds = 0, 0.0

    def add(self, records: int, seconds: float, *, first: bool) -> None:
        if first:
            self._firsts.append((records, seconds))
        else:
            self._later_records += records
            self._later_seconds += seconds

    def seconds(self) -> float:
        """Over all tasks; a first one as long as its records take in later ones, where there are any."""
        if not self._later_records:
            return self._later_seconds + sum(seconds for _, seconds in self._firsts)
        each = self._later_seconds / self._later_records
        return self._later_seconds + sum(min(seconds, each * records) for records, seconds in self._firsts)


class _Caller:
    """Adapts a Worker to Ray Data: a row in (a task), a row out (its receipt, or the serialized error)."""

    def __init__(self, worker: type[Worker], setup: dict[str, Any]) -> None:
        self.worker: Worker | None = None
        self.setup_error = ""
        self.warm = False
        keep_freed_memory()
        try:
            self.worker = worker(**setup)
        except Exception as error:  # noqa: BLE001  the end of this process's stack; raised again by the driver
            self.setup_error = json.dumps(serialize_error(error))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"result": [self._result(json.loads(str(encoded))) for encoded in batch["task"]]}

    def _result(self, numbered: dict[str, Any]) -> str:
        if self.worker is None:
            return self.setup_error
        started = time.perf_counter()
        try:
            receipt = self.worker(numbered["task"])
        except Exception as error:  # noqa: BLE001  likewise
            return json.dumps(serialize_error(error))
        made = {
            "index": numbered["index"],
            "receipt": receipt.model_dump(mode="json", by_alias=True),
            "seconds": time.perf_counter() - started,
            "first": not self.warm,
        }
        self.warm = True
        return json.dumps(made)


def worker_failure(error: BaseException) -> str:
    """Why Ray gave a worker up; without a type for it, the last line of its message, after the tracebacks."""
    from ray.exceptions import OutOfMemoryError, RayActorError, WorkerCrashedError

    if isinstance(error, OutOfMemoryError):
        return "a worker was ended for lack of memory; run the same command again with fewer workers"
    if isinstance(error, RayActorError | WorkerCrashedError):
        return (
            f"a worker process died {WORKER_RESTARTS + 1} times, for lack of memory perhaps; run the same"
            " command again, with fewer workers if that does not help"
        )
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"a Ray worker failed: {one_line(lines[-1] if lines else error, MOST_DETAIL)}; see --debug"
