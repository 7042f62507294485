"""A stand-in for Ray, for tests of what a data stage does with its tasks; test_engine has the real one."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipelines.execution.engine import Engine
from pipelines.execution.head_node import HeadNode
from pipelines.execution.resources import Resources
from pipelines.store.receipts import PartReceipt


class OneByOne(Engine):
    """The engine's contract without Ray: the tasks in this process, forwards or backwards."""

    def __init__(self, *, backwards: bool = False) -> None:
        super().__init__()
        self.step = -1 if backwards else 1

    def _connected(self) -> HeadNode:
        raise AssertionError("this stand-in has no Ray: what it does not replace needs an Engine")

    def gpus(self) -> float:
        return 0.0

    def pool_size(self, resources: Resources, tasks: int) -> int:
        return 1

    def map_parts(
        self,
        worker: Callable[..., Any],
        tasks: Iterable[Any],
        *,
        setup: Mapping[str, Any],
        on_done: Callable[[PartReceipt], None],
        resources: Resources | None = None,
    ) -> list[PartReceipt]:
        work = worker(**setup)
        encoded = [json.dumps(task) for task in tasks]  # tasks must live as JSON
        receipts = [work(json.loads(task)) for task in encoded[:: self.step]]
        for receipt in receipts:
            on_done(receipt)
        return receipts[:: self.step]
