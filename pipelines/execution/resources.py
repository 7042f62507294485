"""What one worker process requests of Ray, and how many of them a cluster takes at once."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipelines.errors import ConfigError

WORKER_CPUS = 0.5  # below one, so that Ray Data's reading tasks always find a CPU (ray#44687)
READING_CPUS = 1.0  # what stays free of a pool for these tasks
GIB = 2**30
EPSILON = 1e-9  # ten shares of 0.1 are one card


@dataclass(frozen=True)
class Resources:
    """What one worker process holds while it lives; Ray counts it, it does not measure it.

    cpus: CPUs. gpus: GPUs, a fraction for workers that share one (0.25: four on each). memory_bytes: memory.
    custom: amounts of resources that a cluster's nodes were started with (`ray start --resources`).
    setting: the config field behind the request, such as "recaption.gpus_per_worker"; named in errors.
    """

    cpus: float = WORKER_CPUS
    gpus: float = 0.0
    memory_bytes: int = 0
    custom: Mapping[str, float] = field(default_factory=dict)
    setting: str = "workers"

    def __post_init__(self) -> None:
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ConfigError(f"{self.setting}: {self.gpus:g} GPUs; above one it must be a whole number")
        if any(amount < 0 for amount in self.by_kind().values()):
            raise ConfigError(f"{self.setting}: a worker cannot request less than nothing")

    def by_kind(self) -> dict[str, float]:
        """The same under Ray's names, without the kinds of which it needs nothing."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory_bytes), **self.custom}
        return {kind: float(amount) for kind, amount in amounts.items() if amount}


def workers_that_fit(nodes: Iterable[Mapping[str, float]], resources: Resources) -> int:
    """How many such workers the nodes take side by side; 0 where no node has what a single one requests.

    nodes: each node's resources under Ray's names. A worker lives on one node, so the amounts of two nodes do
    not add up. READING_CPUS of all CPUs stay free, but for a first worker, which always gets its CPUs.
    """
    nodes = list(nodes)
    request = resources.by_kind()
    fitting = sum(_on_node(node, request) for node in nodes)
    if fitting == 0 or not resources.cpus:
        return fitting
    cpus = sum(node.get("CPU", 0.0) for node in nodes)
    return max(1, min(fitting, _times(cpus - READING_CPUS, resources.cpus)))


def never_fits(nodes: Iterable[Mapping[str, float]], resources: Resources) -> str:
    """Why no node takes even one such worker: the first kind of which it requests too much."""
    nodes = list(nodes)
    for kind, amount in resources.by_kind().items():
        most = max((node.get(kind, 0.0) for node in nodes), default=0.0)
        if most + EPSILON < amount:
            largest = _amount(kind, most)
            return f"one worker requests {_amount(kind, amount)}, and the largest node has {largest}"
    request = ", ".join(_amount(kind, amount) for kind, amount in resources.by_kind().items())
    return f"one worker requests {request}, and no single node has all of it"


def _on_node(node: Mapping[str, float], request: Mapping[str, float]) -> int:
    return min((_times(node.get(kind, 0.0), amount) for kind, amount in request.items()), default=0)


def _times(total: float, each: float) -> int:
    return max(0, math.floor(total / each + EPSILON))


def _amount(kind: str, amount: float) -> str:
    return f"{amount / GIB:,.1f} GiB of memory" if kind == "memory" else f"{amount:g} {kind}"
