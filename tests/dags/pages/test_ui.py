"""`straightshot ui` as it is started: who may drive its pages and who may not, and what they open on."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dags.assets import snapshots
from dags.instance import open_instance
from pipelines.graph import SOURCES, STAGES
from tests.dags.pages.browser import CHROMIUM, FOREIGN, browser

START_SECONDS = 240.0
ADD_PARTITION = """mutation { addDynamicPartition(partitionsDefName: "snapshots", partitionKey: "%s",
  repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "dags.definitions"})
  { __typename } }"""
DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { daemonType healthy required } } } }"
LOCATIONS = "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }"

# What a page tries that is open in the same browser; each attempt ends, whatever comes of it.
ATTACK = """<!doctype html><title>foreign</title><script>
const [dagster, mlflow] = %s;
const mutation = name => `%s`.replace("NAME", name);
const post = {method: "POST", mode: "no-cors", credentials: "include"};
const json = {"Content-Type": "application/json"};
const graphql = name => JSON.stringify({query: mutation(name)});
const attempts = [
  fetch(`${dagster}/graphql?query=${encodeURIComponent(mutation("by-get"))}`,
        {mode: "no-cors", credentials: "include"}),
  fetch(`${dagster}/graphql`, {...post, body: graphql("by-text")}),
  fetch(`${dagster}/graphql`, {...post, body: new URLSearchParams({query: mutation("by-form")})}),
  fetch(`${dagster}/graphql`,
        {method: "POST", credentials: "include", headers: json, body: graphql("by-json")}),
  fetch(`${mlflow}/ajax-api/2.0/mlflow/experiments/create`, {...post, body: '{"name": "stolen"}'}),
  new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = image.onerror = () => reject("image");
    image.src = `${dagster}/graphql?query=${encodeURIComponent(mutation("by-image"))}`;
  }),
  new Promise((resolve, reject) => {
    const socket = new WebSocket(`${dagster.replace("http", "ws")}/graphql`, "graphql-ws");
    socket.onopen = () => { window.opened = true; resolve(); };
    socket.onerror = () => reject("websocket");
  }),
];
window.opened = false;
Promise.allSettled(attempts).then(results => { window.ended = results.length; });
</script>"""


@dataclass(frozen=True)
class Pages:
    """The running command: the two addresses that it printed, and how to ask their servers."""

    home: Path
    dagster: str
    mlflow: str
    token: str

    @property
    def servers(self) -> tuple[str, str]:
        return _server(self.dagster), _server(self.mlflow)

    def graphql(self, query: str, **headers: str) -> tuple[int, str]:
        body = json.dumps({"query": query}).encode()
        return ask(f"{self.servers[0]}/graphql", body, **{"Content-Type": "application/json"} | headers)

    def as_owner(self, query: str) -> dict[str, object]:
        status, text = self.graphql(query, Authorization=f"Bearer {self.token}")
        assert status == 200, text
        return dict(json.loads(text)["data"])

    def partitions(self) -> set[str]:
        with open_instance(self.home) as instance:
            return set(instance.get_dynamic_partitions(snapshots.name or ""))


def _server(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def answer(address: str, body: bytes | None = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers; a redirection is not followed."""
    request = urllib.request.Request(address, body, headers)
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=60) as response:
            return response.status, response.read().decode(errors="replace"), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace"), dict(error.headers)


def ask(address: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    return answer(address, body, **headers)[:2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """`straightshot ui` on a HOME of its own, ended by the signal that ends a service."""
    home = tmp_path_factory.mktemp("ui") / "home"
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dags.cli.app", "ui", "--home", str(home)],
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        shown: dict[str, str] = {}
        lines = []
        for line in process.stdout:
            lines.append(line)
            if match := re.match(r"(Dagster|MLflow) +(http\S+)", line):
                shown[match[1]] = match[2]
            if "Ctrl-C" in line:
                break
        assert shown.keys() == {"Dagster", "MLflow"}, "".join(lines)
        (token,) = parse_qs(urlsplit(shown["Dagster"]).query)["token"]
        yield Pages(home, shown["Dagster"], shown["MLflow"], token)
    finally:
        watchdog.cancel()
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_neither_page_answers_without_the_token(pages):
    for server in pages.servers:
        for path in ("/", "/graphql", "/server_info", "/health", "/ajax-api/2.0/mlflow/experiments/search"):
            assert ask(f"{server}{path}")[0] == 401
        assert ask(server, Authorization="Bearer guessed")[0] == 401
        assert ask(f"{server}/?token=guessed")[0] == 401
    status, text = pages.graphql(ADD_PARTITION % "without-token")
    assert (status, pages.partitions()) == (401, set())
    assert "open the address that `straightshot ui` printed" in text and len(text.splitlines()) == 1


def test_the_printed_address_changes_its_token_into_a_cookie_for_both_pages(pages):
    for address in (pages.dagster, pages.mlflow):
        status, _, headers = answer(address)
        assert status == 303 and "token" not in headers["location"]
        cookie, *attributes = headers["set-cookie"].lower().split("; ")
        assert {"httponly", "samesite=strict"} <= set(attributes)
        for server in pages.servers:
            assert ask(f"{server}/", Cookie=headers["set-cookie"].split(";")[0])[0] == 200
        assert cookie


def test_another_page_is_refused_although_the_browser_sends_the_cookie(pages):
    owner = {"Authorization": f"Bearer {pages.token}"}
    for origin in (f"http://{FOREIGN}", "http://127.0.0.1:1", "null"):
        assert pages.graphql(ADD_PARTITION % "foreign", Origin=origin, **owner)[0] == 403
        create = f"{pages.servers[1]}/ajax-api/2.0/mlflow/experiments/create"
        assert ask(create, b'{"name": "foreign"}', Origin=origin, **owner)[0] == 403
    assert pages.partitions() == set()
    assert pages.graphql(ADD_PARTITION % "own", Origin=pages.servers[0], **owner)[0] == 200
    assert pages.partitions() == {"own"}
    with open_instance(pages.home) as instance:
        instance.delete_dynamic_partition(snapshots.name or "", "own")


def test_a_name_that_was_rebound_to_loopback_is_refused(pages):
    for server in pages.servers:
        port = urlsplit(server).port
        owner = {"Authorization": f"Bearer {pages.token}"}
        assert ask(server, Host=f"{FOREIGN}:{port}", **owner)[0] == 403
        assert ask(server, Host=f"localhost:{port}", **owner)[0] == 200


def test_nothing_is_changed_by_get(pages):
    for path in ("graphql", "graphq%6c", "graphql/"):
        address = f"{pages.servers[0]}/{path}?query={quote(ADD_PARTITION % 'by-get')}"
        assert ask(address, Authorization=f"Bearer {pages.token}")[0] == 405
    assert pages.partitions() == set()


def test_subscriptions_work_and_foreign_ones_do_not(pages):
    address = f"{pages.servers[0].replace('http', 'ws')}/graphql"
    owner = {"Authorization": f"Bearer {pages.token}"}
    with connect(
        address, subprotocols=["graphql-ws"], origin=pages.servers[0], additional_headers=owner
    ) as ws:
        ws.send(json.dumps({"type": "connection_init", "payload": {}}))
        assert json.loads(ws.recv(timeout=30))["type"] == "connection_ack"
    for headers, origin in (({}, pages.servers[0]), (owner, f"http://{FOREIGN}")):
        with pytest.raises(InvalidStatus, match="403"):
            connect(address, subprotocols=["graphql-ws"], origin=origin, additional_headers=headers)


def test_the_code_server_and_the_daemon_work(pages):
    deadline = time.monotonic() + 90
    while True:
        health = pages.as_owner(DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
        required = [status for status in health if status["required"]]
        if required and all(status["healthy"] for status in required):
            break
        assert time.monotonic() < deadline, health
        time.sleep(0.5)
    assert {status["daemonType"] for status in required} >= {"SCHEDULER", "SENSOR", "QUEUED_RUN_COORDINATOR"}
    (location,) = pages.as_owner(LOCATIONS)["workspaceOrError"]["locationEntries"]
    assert location == {"name": "dags.definitions", "loadStatus": "LOADED"}


def test_the_report_is_beside_the_page_and_cannot_drive_it(pages):
    address, owner = f"{pages.servers[0]}/straightshot/report", {"Authorization": f"Bearer {pages.token}"}
    assert ask(address)[0] == 401
    assert ask(address, **owner)[0] == 404
    (pages.home / "report.html").write_text("<title>a report</title>")
    status, text, headers = answer(address, **owner)
    assert (status, text) == (200, "<title>a report</title>")
    assert headers["content-security-policy"].startswith("sandbox ")
    assert "allow-same-origin" not in headers["content-security-policy"]


def test_the_way_to_mlflow_leads_to_where_its_page_is_today(pages):
    address = f"{pages.servers[0]}/straightshot/mlflow/runs/abc"
    status, _, headers = answer(address, Authorization=f"Bearer {pages.token}")
    assert (status, headers["location"]) == (307, f"{pages.servers[1]}/#/runs/abc")


def test_the_token_is_in_no_file(pages):
    files = [path for path in pages.home.rglob("*") if path.is_file()]
    assert any(path.name == "dagster.log" for path in files)
    assert not [path for path in files if pages.token.encode() in content(path)]


def content(path: Path) -> bytes:
    """Of a file; nothing of a database's log that is gone, since the servers go on closing theirs."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@pytest.fixture(scope="module")
def foreign_page(pages, tmp_path_factory) -> Iterator[int]:
    """The port of a server of somebody else's page."""
    folder = tmp_path_factory.mktemp("foreign")
    mutation = ADD_PARTITION % "NAME"
    (folder / "index.html").write_text(ATTACK % (json.dumps(pages.servers), mutation))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_real_browser_shows_the_pages_to_their_owner_and_lets_no_other_page_drive_them(pages, foreign_page):
    with browser() as tab:
        tab.open(pages.mlflow)
        tab.wait_for_texts("Runs")
        assert "straightshot.stage" in tab.evaluate("decodeURIComponent(location.href)")
        tab.open(pages.dagster)
        tab.wait_for_texts(*SOURCES, *(stage.name for stage in STAGES))
        assert "token" not in tab.evaluate("location.href")
        assert "newsletter" not in tab.text().lower()
        # Its own page may do what the others try, over both ways.
        script = f"""fetch("/graphql", {{method: "POST", headers: {{"Content-Type": "application/json"}},
            body: JSON.stringify({{query: `{ADD_PARTITION % "own"}`}})}}).then(answer => answer.status)"""
        assert tab.evaluate(script) == 200
        assert pages.partitions() == {"own"}
        for host in (FOREIGN, "127.0.0.1"):  # of another site, and of this one at another port
            tab.open(f"http://{host}:{foreign_page}/")
            tab.wait_for("window.ended")
            assert tab.evaluate("document.title") == "foreign"
            assert tab.evaluate("window.opened") is False
            assert pages.partitions() == {"own"}
        tab.open(f"{pages.servers[0].replace('127.0.0.1', FOREIGN)}/")  # its name now means this machine
        tab.wait_for_texts("127.0.0.1 and localhost only")
    search = f"{pages.servers[1]}/ajax-api/2.0/mlflow/experiments/search?max_results=99"
    found = json.loads(ask(search, Authorization=f"Bearer {pages.token}")[1])["experiments"]
    assert {experiment["name"] for experiment in found} == {"Default", "straightshot"}
