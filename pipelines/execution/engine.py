"""Ray: start or connect, run fragments, size the pools. The data stages call `Engine.map_parts`.

Ray starts on first use, once per run, so a command that finds everything fresh never pays for it.
"""

import json
import os
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from components.malloc import keep_freed_memory
from pipelines.errors import ConfigError, StageFailed, StraightshotError, raise_serialized, serialize_error
from pipelines.execution.resources import Resources, never_fits, workers_that_fit
from pipelines.store.receipts import PartReceipt

OBJECT_STORE_BYTES = 256 * 2**20  # fragments travel by name, so the store holds receipts only
NO_PROGRESS_SECONDS = 600  # a pool that stands still for so long is an error, not a wait
WORKER_RESTARTS = 3  # a worker killed more often than this fails the stage
RAISED = (StraightshotError, ValueError, OSError)  # what a worker says to the user; the rest is our bug
CONNECT_SECONDS = 5.0


class Worker(Protocol):
    """What a data stage gives the engine: built once per process, then called with one task at a time."""

    def __call__(self, task: Any) -> PartReceipt: ...


class Engine:
    """Ray, local or remote. address: "local", "auto" or "ray://host:port". workers: actors per pool."""

    def __init__(self, address: str = "local", workers: int | None = None) -> None:
        self.address = address
        self._workers = workers
        self._started = self._embedded = False

    def map_parts(
        self,
        worker: type[Worker],
        tasks: Iterable[Any],
        *,
        setup: Mapping[str, Any],
        on_done: Callable[[PartReceipt], None],
        resources: Resources | None = None,
    ) -> list[PartReceipt]:
        """Run every JSON-able task through a pool of `worker(**setup)`; returns receipts in task order.

        resources: what each worker asks for, half a CPU by default; the pool has as many workers as the
        cluster takes of them, and no more than `workers` and than there are tasks. The order of arrival shows
        only in `on_done`. Raises ConfigError where a worker can never fit; StageFailed, or ConfigError, with
        the message of what a worker raised; StageFailed when one died more often than WORKER_RESTARTS.
        """
        encoded = [json.dumps({"index": i, "task": task}) for i, task in enumerate(tasks)]
        if not encoded:
            return []
        self.start()
        import ray
        from ray.data import ActorPoolStrategy
        from ray.data.exceptions import ExecutionTimeoutError

        resources = resources or Resources()
        pool = min(self._pool_size(resources), len(encoded))
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
                done = json.loads(row["result"])
                raise_serialized(done)
                receipts[done["index"]] = PartReceipt.model_validate(done["receipt"])
                on_done(receipts[done["index"]])
        except ray.exceptions.RayError as error:
            raise StageFailed(last_line(error)) from error
        except ExecutionTimeoutError as error:
            asked = ", ".join(f"{amount:g} {kind}" for kind, amount in resources.by_kind().items())
            raise StageFailed(
                f"no task ended for {NO_PROGRESS_SECONDS} s; if the cluster never has {asked} free for a"
                f" worker, lower {resources.setting}"
            ) from error
        return [receipts[i] for i in range(len(encoded))]

    def fitting(self, processes: int) -> int:
        """How many of so many processes run side by side here: one on each GPU where there are any.

        On CPUs, and on a cluster, which may grow, all of them.
        """
        self.start()
        import ray

        gpus = int(ray.cluster_resources().get("GPU", 0))
        return min(processes, gpus) if self._embedded and gpus else processes

    def share_of(self, name: str, processes: int, cpus: int) -> dict[str, float]:
        """What each of so many processes side by side gets: its CPUs, and a GPU where there are any.

        Raises ConfigError, naming the setting, where this machine can never give it; a cluster may grow.
        """
        self.start()
        import ray

        there = ray.cluster_resources()
        each = {"CPU": float(cpus)} | ({"GPU": 1.0} if there.get("GPU") else {})
        for kind, amount in each.items():
            if self._embedded and processes * amount > there.get(kind, 0):
                raise ConfigError(
                    f"{name}: {processes} processes of {amount:g} {kind} each do not fit into the"
                    f" {there.get(kind, 0):g} {kind}s of this machine; set fewer, or use --ray ADDRESS"
                )
        return each

    def check(self) -> str:
        """Start Ray, run one task, and say what there is. Raises ConfigError if there is no Ray."""
        self.start()
        import ray

        assert ray.get(ray.remote(lambda: 1).remote()) == 1
        found = ray.cluster_resources()
        return f"{self.address}: a task ran; {found.get('CPU', 0):g} CPUs, {found.get('GPU', 0):g} GPUs"

    def shutdown(self) -> None:
        """Stop or leave the Ray that this engine started or joined."""
        if self._started:
            import ray

            ray.shutdown()
            self._started = False

    def start(self) -> None:
        """Start Ray, or join it; nothing to do the second time. Raises ConfigError if there is none."""
        if self._started:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ side writes past log_to_driver
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave the cores to others
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        address = os.environ.get("RAY_ADDRESS") or self.address
        self._embedded = address == "local"
        if ":" in address:
            _check_reachable(address)
        import logging

        import ray

        if not ray.is_initialized():
            settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
            if self._embedded:
                settings["num_cpus"] = max(2, os.cpu_count() or 2)
                settings["object_store_memory"] = OBJECT_STORE_BYTES
                settings["include_dashboard"] = False
            try:
                with _nothing_on_stderr():
                    ray.init(address=address, **settings)
            except (ConnectionError, ValueError) as error:
                raise ConfigError(
                    f"no Ray at '{address}' ({error}); start one, or use --ray local"
                ) from error
            except Exception as error:  # what Ray raises here has no type of its own
                if "timed out during startup" not in str(error):
                    raise
                raise StageFailed(
                    "Ray did not start within 30 s: this machine is too busy; run the same command again"
                ) from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its log file has them
        self._started = True

    def _pool_size(self, resources: Resources) -> int:
        """How many workers to start: what fits, at most `workers`, by default one for each CPU.

        Raises ConfigError, naming the setting, where this machine can never take one; a cluster may grow.
        """
        nodes = _nodes()
        most = self._workers or max(1, int(sum(node.get("CPU", 0.0) for node in nodes)))
        fitting = workers_that_fit(nodes, resources)
        if not fitting and self._embedded:
            raise ConfigError(
                f"{resources.setting}: {never_fits(nodes, resources)}; lower it, or use --ray HOST:PORT"
            )
        return max(1, min(most, fitting))


def _nodes() -> list[dict[str, float]]:
    """The resources of each living node, under Ray's names."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@contextmanager
def _nothing_on_stderr() -> Iterator[None]:
    """Ray's C++ side greets on file descriptor 2, past Python's sys.stderr, whatever its log level."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _restarts() -> dict[str, int]:
    """How often a killed worker is started again, and its task tried again."""
    return {"max_restarts": WORKER_RESTARTS, "max_task_retries": WORKER_RESTARTS}


class _Caller:
    """Adapts a Worker to Ray Data: one row in (a task), one row out (its receipt, or what was wrong).

    What a worker raises for the user comes back as a row (errors.serialize_error).
    """

    def __init__(self, worker: type[Worker], setup: dict[str, Any]) -> None:
        self.worker: Worker | None = None
        self.broken = ""
        keep_freed_memory()
        try:
            self.worker = worker(**setup)
        except RAISED as error:
            self.broken = json.dumps(serialize_error(error))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"result": [self._one(json.loads(str(encoded))) for encoded in batch["task"]]}

    def _one(self, given: dict[str, Any]) -> str:
        if self.worker is None:
            return self.broken
        try:
            receipt = self.worker(given["task"])
        except RAISED as error:
            return json.dumps(serialize_error(error))
        return json.dumps(
            {"index": given["index"], "receipt": receipt.model_dump(mode="json", by_alias=True)}
        )


def _check_reachable(address: str) -> None:
    """Ray itself would try a dead address for ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Ray at '{address}' ({error}); start one, or use --ray local") from error


def last_line(error: BaseException) -> str:
    """What Ray's wrappers end in: the error itself, without the tracebacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"a Ray worker failed: {lines[-1] if lines else type(error).__name__}; see --debug"
