"""A password in MLFLOW_TRACKING_URI: it opens the server, and is in nothing that a run writes or prints.

The server is a real one, behind a proxy that asks for the password.
"""

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dags.cli.doctor import _mlflow as doctors_finding

START_SECONDS = 120.0
SECRET = "pl4nted/s3cret"
IN_AN_ADDRESS = "pl4nted%2Fs3cret"
FORMS = tuple(
    form.encode()
    for form in ("pl4nted", "s3cret", base64.b64encode(f"team:{SECRET}".encode()).decode().rstrip("="))
)
PASSED_ON = ("content-type", "content-length", "accept")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """HOST:PORT that asks for the password, and the folder of the MLflow behind it."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", "artifacts"]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **settings, "OMP_NUM_THREADS": "1"},
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_up(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        with password_proxy(f"http://127.0.0.1:{port}") as address:
            yield address, folder
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def password_proxy(behind: str) -> Iterator[str]:
    """HOST:PORT of a server that passes on what comes with the password."""
    wanted = "Basic " + base64.b64encode(f"team:{SECRET}".encode()).decode()

    class Proxy(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)) or None
            if self.headers.get("authorization") != wanted:
                return self.reply(401, b"who are you?", "text/plain")
            passed_on = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
            request = urllib.request.Request(behind + self.path, body, passed_on, method=self.command)
            try:
                with urllib.request.urlopen(request) as answer:
                    self.reply(answer.status, answer.read(), answer.headers.get_content_type())
            except urllib.error.HTTPError as error:
                self.reply(error.code, error.read(), error.headers.get_content_type())

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def reply(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{proxy.server_port}"
        proxy.shutdown()


def test_a_password_in_the_tracking_uri_is_in_nothing_that_commands_write_or_print(
    micro_home, server, tmp_path, monkeypatch
):
    address, server_folder = server
    home = tmp_path / "home"
    shutil.copytree(micro_home, home, ignore=shutil.ignore_patterns("mlflow*", "dagster", "promote"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("HOME", str(tmp_path))
    at_home, run = ("--home", home), ("run", "--preset", "micro", "--select", "promote", "--home", home)
    logging = ("train", "distill", "evaluate", "promote")  # the stages that speak with MLflow
    printed = []

    def call(*arguments: object, status: int) -> str:
        """In a process of its own, so that what C++ code prints is looked at, too."""
        command = [sys.executable, "-m", "dags.cli.app", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        printed.append(done.stdout + done.stderr)
        return printed[-1]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://team:{IN_AN_ADDRESS}@{address}")
    call("run", "--preset", "micro", "--select", "train+", "--force", *logging, "--debug", *at_home, status=0)
    assert f"http://***@{address}" in (next(home.glob("promote/*/receipt.json"))).read_text()
    assert "1 " in call("models", *at_home, status=0)  # the password did open the server
    assert f"http://***@{address}" in call("promote", "99", *at_home, status=2)
    call("rollback", *at_home, status=2)
    assert doctors_finding(home).startswith(f"http://***@{address}, ")
    for wrong in (f"http://team:wrong{IN_AN_ADDRESS}@{address}", f"http://team:{IN_AN_ADDRESS}@127.0.0.1:1"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", wrong)
        assert "MLflow at 'http://***@" in call(*run, "--force", "promote", "--debug", status=2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://team:{IN_AN_ADDRESS}@127.0.0.1:1/mlflow")
    assert "MLflow at 'postgresql://***@" in call(*run, "--force", "promote", "--debug", status=2)

    assert not [text for text in printed if any(form.decode() in text for form in FORMS)]
    files = [path for folder in (tmp_path, server_folder) for path in folder.rglob("*") if path.is_file()]
    assert {"receipt.json", "failed.json", "run.json", "index.db", "server.db"} <= {
        path.name for path in files
    }
    leaks = [path for path in files if any(form in path.read_bytes() for form in FORMS)]
    assert leaks == []
