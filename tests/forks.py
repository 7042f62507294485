"""Processes that tests start: forks of one that has imported what is slow to import, once for all of them.

What it imports is what the modules of these tests ask for as they are imported themselves.
"""

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from pipelines.store.faults import FAULT_VARIABLE

STORES = (  # of MLflow, which imports them when they are asked for
    "mlflow.pyfunc.model",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
)
KILLED = -9
SECONDS = 300.0  # a hang

FORKS = multiprocessing.get_context("forkserver")
_IMPORTED: list[str] = []


def imported_once(*modules: str) -> None:
    """Have these imported before the first fork."""
    _IMPORTED.extend(modules)
    FORKS.set_forkserver_preload(_IMPORTED)


def status_at(fault: str, call: Callable[..., object], *arguments: Any) -> int | None:
    """The exit status of a process of its own that does this with a fault point set; None where it hangs."""
    process = FORKS.Process(target=_with_fault, args=({**os.environ, FAULT_VARIABLE: fault}, call, arguments))
    process.start()
    process.join(SECONDS)
    status = process.exitcode
    process.kill()
    return status


def _with_fault(environment: dict[str, str], call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    call(*arguments)
