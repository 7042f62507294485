"""Processes that tests start: forks of one that has imported what is slow to import, once for all of them."""

import multiprocessing

STORES = (  # of MLflow, which imports them when they are asked for
    "mlflow.pyfunc.model",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
)

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([*STORES, "accelerate", "torch._dynamo", "pipelines.stage"])
