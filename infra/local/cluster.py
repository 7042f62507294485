"""`infra/local/up` and `down`: what compose.yaml starts, as plain processes on this machine's loopback.

Postgres (Dagster's history and MLflow's store), MLflow's server, a Ray head without CPUs and workers that ask
for a token, Dagster's page and daemon. Everything lies in one folder, --state; its file `env` (mode 600) has
the addresses and the passwords, made at random the first time and kept after that.
"""

import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import postgres
import typer
from processes import NotStarted, Record, Service, start_all, stop_all

from dags.pages.guard import TOKEN_VARIABLE, bearer, new_token

LOOPBACK = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / "runs" / "cluster"
DATABASES = ("dagster", "mlflow")
SQLALCHEMY = "postgresql+psycopg2"  # without a driver's name SQLAlchemy 2.1 takes psycopg 3
OBJECT_STORE_BYTES = 256 * 2**20  # fragments travel by name, so the store holds receipts only
QUIET = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its workers are for GenAI jobs, and eight processes
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
State = Annotated[Path, typer.Option(help="The folder of everything that it keeps.")]

commands = typer.Typer(add_completion=False, help="A cluster of plain processes on loopback.")


@commands.command()
def up(
    state: State = STATE,
    workers: Annotated[int, typer.Option(min=1, help="Ray's workers, of one CPU each.")] = 2,
) -> None:
    """Start everything, and print how to use it."""
    state = state.resolve()
    record = Record(state / "processes.json")
    if living := record.living():
        names = ", ".join(entry.name for entry in living)
        _fail(f"{state}: {names} run already; end them: infra/local/down", 2)
    record.path.unlink(missing_ok=True)  # of processes that a reboot ended
    os.umask(0o077)
    state.mkdir(mode=0o711, parents=True, exist_ok=True)
    state.chmod(0o711 if postgres.system_user() else 0o700)
    for name in ("logs", "dagster", "artifacts", "home"):
        (state / name).mkdir(exist_ok=True)
    settings = _settings(state)
    try:
        _start_postgres(state, settings, record)
        for wave in _waves(state, settings, workers):
            typer.echo(f"starting {', '.join(service.name for service in wave)} …")
            start_all(wave, state / "logs", record)
    except NotStarted as reason:
        stop_all(record)
        _fail(str(reason), 1)
    except BaseException:
        stop_all(record)
        raise
    typer.echo(f"Dagster  {settings['DAGSTER_URL']}/?token={settings[TOKEN_VARIABLE]}")
    typer.echo(f"MLflow   {settings['MLFLOW_TRACKING_URI']}")
    typer.echo(f"Ray      {settings['RAY_ADDRESS']}, {workers} workers, with a token")
    typer.echo(f"For `straightshot` in this shell:  set -a; . {state / 'env'}; set +a")
    typer.echo("End them:  infra/local/down" + ("" if state == STATE else f" --state {state}"))


@commands.command()
def down(state: State = STATE) -> None:
    """End everything that `up` started; the data stay."""
    state = state.resolve()
    ended = stop_all(Record(state / "processes.json"))
    if ended and (state / "env").exists():
        shutil.rmtree(_read_env(state / "env")["RAY_TMPDIR"], ignore_errors=True)
    typer.echo(f"ended {', '.join(ended)}; the data stay in {state}" if ended else f"nothing runs in {state}")


def _start_postgres(state: Path, settings: Mapping[str, str], record: Record) -> None:
    typer.echo("starting postgres …")
    data, url = state / "postgres", settings["POSTGRES_URL"]
    postgres.initialise(data, settings["POSTGRES_PASSWORD"])
    start_all([postgres.service(data, int(settings["POSTGRES_PORT"]), url)], state / "logs", record)
    for name in DATABASES:
        postgres.make_database(url, name, settings[f"{name.upper()}_PASSWORD"])


def _waves(state: Path, settings: Mapping[str, str], workers: int) -> list[list[Service]]:
    """All but Postgres. The second wave needs the first: workers a head, the daemon the page's tables."""
    environment = {**QUIET, **settings}
    tracking, page = settings["MLFLOW_TRACKING_URI"], settings["DAGSTER_URL"]
    mlflow = {**environment, "MLFLOW_BACKEND_STORE_URI": settings["MLFLOW_DATABASE_URL"]}
    del mlflow["MLFLOW_TRACKING_URI"]  # the server is not its own client
    head = partial(_listens, settings["RAY_ADDRESS"])
    history = settings["DAGSTER_POSTGRES_URL"].replace(SQLALCHEMY, "postgresql")
    beats = partial(postgres.daemon_beats, history, time.time())
    names = [f"ray-worker-{number}" for number in range(1, workers + 1)]
    return [
        [
            Service("mlflow", _mlflow(state, tracking), partial(_healthy, f"{tracking}/health"), mlflow),
            Service("ray-head", _ray_head(settings), head, environment),
            Service(
                "dagster",
                _dagster_page(state, page),
                partial(_healthy, f"{page}/server_info", settings[TOKEN_VARIABLE]),
                environment,
            ),
        ],
        [
            *(Service(name, _ray_worker(settings), head, environment) for name in names),
            Service("dagster-daemon", _dagster_daemon(state), beats, environment),
        ],
    ]


def _mlflow(state: Path, url: str) -> tuple[str, ...]:
    """The database's URL comes by MLFLOW_BACKEND_STORE_URI: a command line can be read by every user."""
    return (
        *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", url.rpartition(":")[2]),
        *("--artifacts-destination", (state / "artifacts").as_uri(), "--workers", "1"),
    )


def _ray_head(settings: Mapping[str, str]) -> tuple[str, ...]:
    """A head without CPUs: no worker of a stage runs beside the cluster's only state."""
    port = settings["RAY_ADDRESS"].rpartition(":")[2]
    options = ("--head", "--port", port, "--num-cpus", "0", "--include-dashboard", "false")
    return (*_ray_start(), *options, "--temp-dir", settings["RAY_TMPDIR"])


def _ray_worker(settings: Mapping[str, str]) -> tuple[str, ...]:
    return (*_ray_start(), "--address", settings["RAY_ADDRESS"], "--num-cpus", "1")


def _ray_start() -> tuple[str, ...]:
    store = ("--object-store-memory", str(OBJECT_STORE_BYTES))
    return (
        _program("ray"),
        "start",
        "--block",
        "--node-ip-address",
        LOOPBACK,
        "--disable-usage-stats",
        *store,
    )


def _dagster_page(state: Path, url: str) -> tuple[str, ...]:
    port = url.rpartition(":")[2]
    return (sys.executable, "-m", "dags.pages.dagster_page", _workspace(state), port)


def _dagster_daemon(state: Path) -> tuple[str, ...]:
    return (_program("dagster-daemon"), "run", "-w", _workspace(state))


def _workspace(state: Path) -> str:
    return str(state / "dagster" / "workspace.yaml")


def _program(name: str) -> str:
    """A library's command, of this Python's environment."""
    return str(Path(sys.executable).parent / name)


def _settings(state: Path) -> dict[str, str]:
    """What `env` says; made the first time. Dagster's own settings are copied anew each time."""
    for source, name in (("postgres.yaml", "dagster.yaml"), ("workspace.yaml", "workspace.yaml")):
        shutil.copyfile(ROOT / "infra" / "dagster" / source, state / "dagster" / name)
    path = state / "env"
    if not path.exists():
        _write_env(path, _new_settings(state))
    settings = _read_env(path)
    temporary = Path(settings["RAY_TMPDIR"])
    temporary.mkdir(exist_ok=True)
    if temporary.stat().st_uid != os.geteuid():
        _fail(f"{temporary} belongs to another user; name another RAY_TMPDIR in {path}", 1)
    return settings


def _new_settings(state: Path) -> dict[str, str]:
    port = {name: _free_port() for name in ("postgres", "mlflow", "ray", "dagster")}
    password = {name: secrets.token_urlsafe(24) for name in ("postgres", *DATABASES)}

    def database(name: str, scheme: str) -> str:
        return f"{scheme}://{name}:{password[name]}@{LOOPBACK}:{port['postgres']}/{name}"

    token = state / "ray-token"
    token.write_text(secrets.token_hex(32))
    return {
        "STRAIGHTSHOT_HOME": str(state / "home"),
        "MLFLOW_TRACKING_URI": f"http://{LOOPBACK}:{port['mlflow']}",
        "RAY_ADDRESS": f"{LOOPBACK}:{port['ray']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="ray-"),  # short: its sockets' paths must stay under 107 bytes
        "DAGSTER_HOME": str(state / "dagster"),
        "DAGSTER_URL": f"http://{LOOPBACK}:{port['dagster']}",
        TOKEN_VARIABLE: new_token(),
        "DAGSTER_POSTGRES_URL": database("dagster", SQLALCHEMY),
        "MLFLOW_DATABASE_URL": database("mlflow", SQLALCHEMY),
        "POSTGRES_URL": database("postgres", "postgresql"),
        "POSTGRES_PORT": str(port["postgres"]),
        **{f"{name.upper()}_PASSWORD": word for name, word in password.items()},
    }


def _write_env(path: Path, settings: Mapping[str, str]) -> None:
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    new.replace(path)


def _read_env(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def _healthy(url: str, token: str = "") -> bool:
    try:
        request = urllib.request.Request(url, headers=bearer(token) if token else {})
        with urllib.request.urlopen(request, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _fail(reason: str, status: int) -> NoReturn:
    typer.echo(f"error: {reason}", err=True)
    raise SystemExit(status)


if __name__ == "__main__":
    commands()
