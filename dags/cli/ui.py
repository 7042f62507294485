"""Dagster's page (with its daemon) and MLflow's, on loopback, until Ctrl-C.

Both look at the same HOME that the command writes to. Whoever drives these pages can run code, so both stand
behind a guard (dags/pages/guard.py); the addresses that are shown have its token.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from components.redaction import redacted
from dags.instance import write_settings
from dags.pages.addresses import dag_page, server_page, training_runs
from dags.pages.guard import TOKEN_VARIABLE, bearer, new_token
from dags.pages.links import MLFLOW_VARIABLE
from dags.pages.processes import LOOPBACK, Keeper, Server, free_port, running, wait_until_up, watch
from pipelines.registry.mlflow_store import ARTIFACTS, Tracker
from pipelines.store.home import HOME_VARIABLE

CODE = "dags.definitions"  # also the name of the code location, which the history knows schedules by
WORKSPACE = """\
load_from:
  - grpc_server:
      socket: {socket}
      location_name: {name}
"""


def serve(home: Path, dagster_port: int, mlflow_port: int, show: Callable[[str], None]) -> None:
    """Start both, show their addresses, end both on Ctrl-C. A port of 0 is the first free one.

    MLflow's page is served for HOME's own database only; a server that MLFLOW_TRACKING_URI names has its own.
    Raises StraightshotError if one does not start, or ends by itself.
    """
    token, tracker = new_token(), Tracker(home)
    dagster = f"http://{LOOPBACK}:{dagster_port or free_port()}"
    mlflow = server_page(tracker.uri)
    mlflow_shown = mlflow or redacted(tracker.uri)
    servers: list[Server] = []
    if tracker.own:
        mlflow = f"http://{LOOPBACK}:{mlflow_port or free_port()}"
        mlflow_shown = training_runs(mlflow, tracker.experiment, token)  # makes the database, alone with it
        servers.append(_mlflow_server(home, mlflow, tracker.uri, token))
    environment = {**_environment(home, token), **({MLFLOW_VARIABLE: mlflow} if mlflow else {})}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # ends the servers, too
    with ExitStack() as stack:
        # In a folder of its own that nobody else can enter: whoever reaches the socket can run code.
        keeper = stack.enter_context(Keeper())
        private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="straightshot-")))
        servers += _dagster_servers(home, dagster, private, token)
        show("starting …")
        started = []
        for server in servers:
            started.append((server, stack.enter_context(running(server, environment, keeper))))
            if isinstance(server.health, Path):  # the code server: the others need it as they start
                wait_until_up(*started[-1])
        for server, process in started:
            wait_until_up(server, process)
        show(f"{'Dagster':<8} {dag_page(dagster, token)}")
        show(f"{'MLflow':<8} {mlflow_shown}")
        show("Whoever has these addresses can run code here. Ctrl-C ends them.")
        watch(started)


def _environment(home: Path, token: str) -> dict[str, str]:
    return {
        **os.environ,
        "DAGSTER_HOME": str(write_settings(home)),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its workers are for GenAI jobs, and eight processes
        HOME_VARIABLE: str(home.resolve()),
        TOKEN_VARIABLE: token,
    }


def _dagster_servers(home: Path, address: str, private: Path, token: str) -> list[Server]:
    """The code server, then the page and the daemon, which share it."""
    logs, socket, workspace = home.resolve() / "logs", private / "code", private / "workspace.yaml"
    workspace.write_text(WORKSPACE.format(socket=socket, name=CODE))
    python = (sys.executable, "-m")
    code = (
        *(*python, "dagster", "code-server", "start", "--socket", str(socket), "--module-name", CODE),
        *("--location-name", CODE, "--use-python-environment-entry-point", "--log-level", "warning"),
    )
    page = (*python, "dags.pages.dagster_page", str(workspace), _port(address))
    daemon = (*python, "dagster._daemon", "run", "--workspace", str(workspace))
    health = f"{address}/server_info"
    return [
        Server("Dagster's code server", code, logs / "code.log", socket),
        Server("Dagster", page, logs / "dagster.log", health, bearer(token)),
        Server("Dagster's daemon", daemon, logs / "daemon.log"),
    ]


def _mlflow_server(home: Path, address: str, uri: str, token: str) -> Server:
    artifacts = (home.resolve() / ARTIFACTS).as_uri()
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--app-name", "straightshot", "--workers", "1"),
        *("--host", LOOPBACK, "--port", _port(address), "--uvicorn-opts", "--log-level warning"),
        *("--backend-store-uri", uri, "--registry-store-uri", uri),
        *("--default-artifact-root", artifacts, "--artifacts-destination", artifacts),
    )
    log = home.resolve() / "logs" / "mlflow.log"
    return Server("MLflow", command, log, f"{address}/health", bearer(token))


def _port(address: str) -> str:
    return address.rpartition(":")[2]
