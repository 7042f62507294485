"""A Postgres of its own folder and port, from the system's packages.

It listens on 127.0.0.1 only, has no socket file, and asks for a password. Postgres refuses to run as root;
for root it runs as the package's user `postgres`, which has nothing to do with the system's own cluster.
"""

import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import psycopg2
from processes import NotStarted, Service
from psycopg2 import sql

LOOPBACK = "127.0.0.1"
OWNER = "postgres"  # the superuser inside, and for root the system's user that runs it
DEBIAN = Path("/usr/lib/postgresql")  # Debian keeps the server's programs off the PATH


def programs() -> Path:
    """The folder of initdb and postgres, the newest where there are several. Raises NotStarted."""
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = shutil.which("initdb")
    if not versions and not found:
        raise NotStarted("Postgres is not installed: apt-get install postgresql")
    return (versions[-1] if versions else Path(str(found))).resolve().parent


def system_user() -> str | None:
    """The user that runs Postgres, where that is not the one who asks."""
    return OWNER if os.geteuid() == 0 else None


def initialise(data: Path, password: str) -> None:
    """Make the folder of a new cluster; nothing to do where there is one. Raises NotStarted."""
    if data.exists():
        return
    user = system_user()
    new = data.with_suffix(".new")  # it gets its name when it is whole
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    password_file = data.with_suffix(".password")
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if user is not None:
        shutil.chown(new, user)
        shutil.chown(password_file, user)
    arguments = ("--username", OWNER, "--auth", "scram-sha-256", "--pwfile", str(password_file))
    try:
        done = subprocess.run(
            [programs() / "initdb", "--pgdata", new, *arguments, "--encoding", "UTF8", "--no-locale"],
            cwd="/",
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        password_file.unlink()
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        hint = f"; '{user}' must be able to enter that folder: choose another --state" if user else ""
        raise NotStarted(f"initdb of {data} failed: {reason}{hint}")
    new.rename(data)


def service(data: Path, port: int, url: str) -> Service:
    """The server. url: of its superuser, which is used to see whether it answers."""
    settings = ("-h", LOOPBACK, "-p", str(port), "-k", "")
    return Service(
        "postgres",
        (str(programs() / "postgres"), "-D", str(data), *settings),
        partial(_answers, url),
        user=system_user(),
        stop=signal.SIGINT,  # Postgres' fast shutdown: it does not wait for clients
    )


def make_database(url: str, name: str, password: str) -> None:
    """A role and a database of that name; nothing to do where they are. url: the superuser's."""
    connection = psycopg2.connect(url)
    connection.autocommit = True  # CREATE DATABASE runs in no transaction
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name])
            if cursor.fetchone() is None:
                create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
                cursor.execute(create.format(sql.Identifier(name), sql.Literal(password)))
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if cursor.fetchone() is None:
                database = sql.Identifier(name)
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, database))
                cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    finally:
        connection.close()


def daemon_beats(url: str, since: float) -> bool:
    """Whether a Dagster daemon has reported in this database since then, in seconds since the epoch."""
    query = "SELECT count(*) FROM daemon_heartbeats WHERE timestamp > to_timestamp(%s) AT TIME ZONE 'UTC'"
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(query, [since])
            return bool(cursor.fetchone()[0])
    finally:
        connection.close()


def _answers(url: str) -> bool:
    try:
        psycopg2.connect(url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True
