"""Processes that change one registry, started by tests: forks of one that has imported what they need."""

import multiprocessing

STORES = (
    "mlflow.pyfunc.model",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
)

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(list(STORES))
