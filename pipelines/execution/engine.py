"""The Ray of a run, which a data stage's tasks are mapped on: what it has, its start and its end.

It starts on first use, once per run, so a command that finds everything fresh never pays for it.
"""

import atexit
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from pipelines.errors import ConfigError, HeadLost
from pipelines.execution.head_node import HeadNode
from pipelines.execution.part_pool import Worker, map_in_pool
from pipelines.execution.ray_connection import connect, ray_address
from pipelines.execution.resources import Resources, never_fits, workers_that_fit
from pipelines.execution.watchdog import end_at_once, ended_when
from pipelines.store.receipts import PartReceipt

LOST_HEAD_SECONDS = 20.0  # to end in once the head is lost
HEAD_POLL_SECONDS = 1.0
GO_ON = "when the cluster is whole again, run the same command again: it goes on from here"


class Engine:
    """Ray, on this machine or a cluster; used with `with`, it is left or stopped at the end.

    address: "local", "auto" or HOST:PORT; by default RAY_ADDRESS, else "local". workers: the most in a pool.
    insecure: use a Ray that asks for no token, too. startup_seconds: how long it waited so far for the start
    of Ray, of pools and of their workers (models loaded, warm) alone: what no number of tasks changes.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, *, insecure: bool = False
    ) -> None:
        self.address = address or ray_address("local", explicit=False)
        self._workers = workers
        self.insecure = insecure
        self.startup_seconds = 0.0
        self._embedded = False
        self._head: HeadNode | None = None  # once started
        self._abandoned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

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

        resources: what each worker requests, half a CPU by default; the pool has as many workers as the
        cluster takes of them, and no more than `workers` and than there are tasks. The order of arrival shows
        only in `on_done`. Raises ConfigError where a worker can never fit; ConfigError, StageFailed or
        UnexpectedError with the message of what a worker raised; StageFailed when one died more often than
        WORKER_RESTARTS.
        """
        todo, resources = list(tasks), resources or Resources()
        if not todo:
            return []
        with self.in_use():
            pool = min(self._pool_size(resources), len(todo))
            receipts, startup = map_in_pool(worker, todo, setup, on_done, pool, resources)
        self.startup_seconds += startup
        return receipts

    def pool_size(self, resources: Resources, tasks: int) -> int:
        """How many workers `map_parts` starts for so many tasks; raises ConfigError as it does."""
        with self.in_use():
            return min(self._pool_size(resources), tasks)

    def gpus(self) -> float:
        """How many GPUs there are, over all nodes."""
        return self.total().get("GPU", 0.0)

    def total(self) -> dict[str, float]:
        """The resources of all living nodes together, under Ray's names."""
        with self.in_use():
            import ray

            return dict(ray.cluster_resources())

    def fitting(self, processes: int) -> int:
        """How many of so many processes run side by side here: one on each GPU where there are any.

        On CPUs, and on a cluster, which may grow, all of them.
        """
        gpus = int(self.gpus())
        return min(processes, gpus) if self._embedded and gpus else processes

    def share_of(self, name: str, processes: int, cpus: int) -> dict[str, float]:
        """What each of so many processes side by side gets: its CPUs, and a GPU where there are any.

        Raises ConfigError, naming the setting, where this machine can never give it; a cluster may grow.
        """
        total = self.total()
        each = {"CPU": float(cpus)} | ({"GPU": 1.0} if total.get("GPU") else {})
        for kind, amount in each.items():
            if self._embedded and processes * amount > total.get(kind, 0):
                raise ConfigError(
                    f"{name}: {processes} processes of {amount:g} {kind} each do not fit into the"
                    f" {total.get(kind, 0):g} {kind}s of this machine; set fewer, or use --ray HOST:PORT"
                )
        return each

    def has_room(self, processes: int, each: Mapping[str, float]) -> bool:
        """Whether all nodes together have that for so many processes; True as long as nobody knows."""
        total = self._head.total() if self._head is not None else None
        return total is None or all(
            total.get(kind, 0.0) >= processes * amount for kind, amount in each.items()
        )

    def check(self) -> str:
        """Start Ray, run one task, and describe the cluster. Raises ConfigError if there is no Ray."""
        with self.in_use():
            import ray

            assert ray.get(ray.remote(lambda: 1).remote()) == 1
        total = self.total()
        return f"{self.address}: a task ran; {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"

    def abandon(self) -> None:
        """Leave Ray to this process's end, which is then at once (`watchdog.end_at_once`).

        For where a thread still waits within Ray: under it Ray ends the process without a word when it is
        shut down, and at times crashes when Python takes itself down.
        """
        if not self._abandoned:
            self._abandoned = True
            atexit.register(end_at_once)  # what is registered last runs first, and nothing after it

    def shutdown(self) -> None:
        """Stop or leave the Ray that this engine started or joined, unless it was abandoned."""
        if self._head is not None and not self._abandoned:
            import ray

            ray.shutdown()
            self._head = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Ray, started or joined; whatever waits for it is within this. Raises ConfigError if there is none,
        HeadLost once its head is lost, for which Ray itself would wait.
        """
        head = self._head = self._head or self._connected()
        try:
            with ended_when(head.watch(), after=GO_ON, grace=LOST_HEAD_SECONDS, error=HeadLost):
                while not head.answers():  # without one Ray ends this process where it needs its object store
                    time.sleep(HEAD_POLL_SECONDS)
                yield
        except HeadLost:
            self.abandon()  # Ray's threads go on asking for the head
            raise

    def start(self) -> None:
        """Start Ray, or join it; nothing to do the second time. Raises ConfigError if there is none."""
        self._head = self._head or self._connected()

    def _connected(self) -> HeadNode:
        started = time.perf_counter()
        connect(self.address, insecure=self.insecure)
        self._embedded = self.address == "local"
        head = HeadNode(self.address)
        self.startup_seconds += time.perf_counter() - started
        return head

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
