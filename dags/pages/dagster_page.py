"""Dagster's page behind the guard, with the way to the report and to MLflow's page beside it.

A process of its own, started by `straightshot ui`, or in a deployment instead of `dagster-webserver`:
    STRAIGHTSHOT_UI_TOKEN=... python -m dags.pages.dagster_page WORKSPACE.yaml PORT [HOST]
HOST is the address to listen on, loopback by default. Whatever it is, the page answers to the names of
loopback only: a container listens on 0.0.0.0, and its port is published on the host's loopback.
"""

import os
import sys
from pathlib import Path

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext  # public nowhere
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from starlette.applications import Starlette
from starlette.routing import Mount

from dags.pages.guard import TOKEN_VARIABLE, guarded
from dags.pages.links import ROUTES
from dags.pages.processes import LOOPBACK

STATEMENT_MS, POOL_SECONDS, POOL_OVERFLOW = 15_000, 3600, 20  # as `dagster-webserver` has them
CLOSE_SECONDS = 2  # for open websockets, when the page ends


def serve(workspace: Path, host: str, port: int) -> None:
    """Serve the instance in DAGSTER_HOME until the process is terminated."""
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(STATEMENT_MS, POOL_SECONDS, POOL_OVERFLOW)
        target = WorkspaceFileTarget([str(workspace)])
        with WorkspaceProcessContext(instance, workspace_load_target=target) as context:
            page = create_app_from_workspace_process_context(context)
            app = Starlette(routes=[*ROUTES, Mount("/", page)])
            uvicorn.run(
                guarded(app),
                host=host,
                port=port,
                log_level="warning",
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )


if __name__ == "__main__":
    if not os.environ.get(TOKEN_VARIABLE):
        sys.exit(f"{TOKEN_VARIABLE} is not set; the page wants a token that nobody can guess")
    workspace_file, port_number, *address = sys.argv[1:]
    serve(Path(workspace_file), address[0] if address else LOOPBACK, int(port_number))
