"""`infra/local/up`: Dagster's daemon runs the DAG on Ray, and a real Postgres keeps what it did."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psycopg2
import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "infra" / "local"
RUN_SECONDS = 300  # some 20 s on two cores that have nothing else to do
FORCED = ("shard", "evaluate", "promote")  # Ray, then metrics, then a model; the rest was made by micro_home
POSTGRES = shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not POSTGRES, reason="Postgres is not installed: apt-get install postgresql"),
]


@pytest.fixture(scope="module")
def state(micro_home):
    """The folder of a cluster that runs, with a copy of a finished HOME in it."""
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))  # pytest's own cannot be entered by the user postgres
    try:
        shutil.copytree(micro_home, folder / "home", ignore=shutil.ignore_patterns("mlflow*", "dagster"))
        local("up", folder, "--workers", "1")
        yield folder
    finally:
        local("down", folder)
        shutil.rmtree(folder)


def local(command: str, folder: Path, *options: str) -> str:
    done = subprocess.run(
        [LOCAL / command, "--state", folder, *options],
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings(state: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (state / "env").read_text().splitlines())


def query(state: Path, database: str, text: str) -> list[tuple]:
    url = settings(state)[database].replace("+psycopg2", "")
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchall()
    finally:
        connection.close()


def launch(state: Path) -> None:
    """As a user of the deployment: register the snapshot, queue a run; the daemon starts it."""
    environment = {**os.environ, **settings(state), "DAGSTER_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    code = (
        "import sys, dagster as dg\n"
        "from dagster._cli import main\n"
        "with dg.DagsterInstance.get() as instance:\n"
        "    instance.add_dynamic_partitions('snapshots', ['default'])\n"
        "main()\n"
    )
    config = {"resources": {"straightshot": {"config": {"force": list(FORCED)}}}}
    workspace = ("-w", str(state / "dagster" / "workspace.yaml"), "-j", "straightshot")
    tags = ("--tags", json.dumps({"dagster/partition": "default"}))
    arguments = ["job", "launch", *workspace, *tags, "--config-json", json.dumps(config)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def finished(state: Path) -> str:
    """The status of the one run, once it has ended."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        ((status,),) = query(state, "DAGSTER_POSTGRES_URL", "SELECT status FROM runs")
        if status in ("SUCCESS", "FAILURE", "CANCELED"):
            return status
        time.sleep(0.5)
    raise AssertionError(f"the run was {status} after {RUN_SECONDS} s")


def test_the_daemon_runs_the_dag_and_its_history_metrics_and_model_lie_in_postgres(state):
    launch(state)
    assert finished(state) == "SUCCESS", (state / "logs" / "dagster-daemon.log").read_text()[-4000:]
    events = query(
        state,
        "DAGSTER_POSTGRES_URL",
        "SELECT asset_key FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'",
    )
    assert {json.loads(key)[0] for (key,) in events} >= {"filter", "recaption", *FORCED}
    assert query(state, "MLFLOW_DATABASE_URL", "SELECT name FROM registered_models") == [("straightshot",)]
    logged = query(
        state,
        "MLFLOW_DATABASE_URL",
        "SELECT count(*) FROM metrics JOIN tags USING (run_uuid)"
        " WHERE tags.key = 'straightshot.stage' AND tags.value = 'evaluate'",
    )
    assert logged[0][0] > 0
    assert not list((state / "home").rglob("mlflow.db"))  # nothing went to a store of HOME's own
    assert list((state / "artifacts").rglob("*.safetensors"))  # the server keeps the weights


def test_the_passwords_are_for_the_owner_only_and_nothing_listens_beyond_loopback(state):
    import psutil

    for name in ("env", "ray-token"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
    for started in json.loads((state / "processes.json").read_text()):
        if not started["name"].startswith("ray"):  # Ray's ports bind everywhere; its token is the protection
            process = psutil.Process(started["pid"])
            connections = process.net_connections()
            for child in process.children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # Postgres' come and go
                    connections += child.net_connections()
            listening = {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
            assert listening <= {"127.0.0.1", "::1"}, started["name"]
    role, url = "dagster", settings(state)["DAGSTER_POSTGRES_URL"].replace("+psycopg2", "")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(url.replace(settings(state)["DAGSTER_PASSWORD"], "wrong"))
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        psycopg2.connect(url.removesuffix(role) + "mlflow")


def test_up_refuses_a_second_cluster_in_the_same_folder(state):
    done = subprocess.run(
        [LOCAL / "up", "--state", state],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "run already" in done.stderr
