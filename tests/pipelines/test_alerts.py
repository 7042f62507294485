"""Alerts reach a webhook, signed, at least once; absence is one, too. A real server on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipelines import absence
from pipelines.absence import DAY, absent_champion, alert_once_a_day, notice_champion
from pipelines.alerts import EVENTS, SECRET_VARIABLE, URL_VARIABLE, alert, alerting, deliver, signature
from pipelines.config import load_config
from pipelines.deployment import deploy
from pipelines.errors import GateRefused
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import REGISTERED_NAME

SECRET = "s3cret-of-the-team"


class Webhook:
    """What a receiver got. answer: the status it gives."""

    def __init__(self) -> None:
        self.answer = 200
        self.requests: list[tuple[dict[str, str], bytes]] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.requests.append((dict(self.headers), body))
                self.send_response(webhook.answer)
                self.send_header("Location", "/login")  # of a redirect
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def events(self) -> list[str]:
        return [json.loads(body)["event"] for _, body in self.requests]


@pytest.fixture
def webhook(monkeypatch):
    webhook = Webhook()
    monkeypatch.setenv(URL_VARIABLE, webhook.url)
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    yield webhook
    webhook.server.shutdown()
    webhook.server.server_close()


def test_an_alert_is_json_with_a_signature_over_time_and_body(tmp_path, webhook):
    alert(tmp_path, "run_failed", "train: diverged", run="7")
    ((headers, body),) = webhook.requests
    sent = json.loads(body)
    assert (sent["event"], sent["text"], sent["run"]) == ("run_failed", "train: diverged", "7")
    timestamp = headers["Straightshot-Timestamp"]
    assert headers["Straightshot-Signature"] == signature(body, timestamp, SECRET)
    # printf '1700000000.{"id": "7"}' | openssl dgst -sha256 -hmac key
    known = "45a32fd04a71da3d2fe5e1a81bfafc1c11b27730e09456623e9a3536d8aea24a"
    assert signature(b'{"id": "7"}', "1700000000", "key") == f"sha256={known}"
    assert signature(body, timestamp, "other") != headers["Straightshot-Signature"]
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("answer", [503, 302])
def test_what_the_webhook_does_not_take_is_kept_and_sent_again_in_order(tmp_path, webhook, answer):
    webhook.answer = answer
    alert(tmp_path, "run_failed", "one")
    alert(tmp_path, "gate_refused", "two")
    assert deliver(tmp_path) == 2
    webhook.answer = 200
    webhook.requests.clear()
    assert deliver(tmp_path) == 0
    assert webhook.events == ["run_failed", "gate_refused"]
    assert deliver(tmp_path) == 0 and len(webhook.requests) == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "no url", "file:///etc/passwd"])
def test_a_webhook_that_cannot_be_reached_never_fails_the_run(tmp_path, monkeypatch, url):
    monkeypatch.setenv(URL_VARIABLE, url)
    alert(tmp_path, "run_failed", "train: diverged")
    assert deliver(tmp_path) == 1
    (tmp_path / "file").write_text("")
    alert(tmp_path / "file", "run_failed", "nowhere to keep it")


def test_without_a_webhook_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    alert(tmp_path, "run_failed", "train: diverged")
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_an_alert_of_its_kind_and_goes_on(tmp_path, webhook):
    for error, event in ((GateRefused("too low"), "gate_refused"), (ValueError("a\nbug"), "run_failed")):
        with pytest.raises(type(error)), alerting(tmp_path, "train of snapshot a"):
            raise error
        assert webhook.events[-1] == event
    assert json.loads(webhook.requests[-1][1])["text"] == "train of snapshot a: ValueError: a bug"
    with pytest.raises(KeyboardInterrupt), alerting(tmp_path, "train"):
        raise KeyboardInterrupt
    assert len(webhook.requests) == 2
    with pytest.raises(AssertionError):
        alert(tmp_path, "no event of the table", "")
    assert set(webhook.events) <= set(EVENTS)


@pytest.mark.parametrize("name", [REGISTERED_NAME, "another"])
def test_another_champion_is_noticed_once_whoever_promoted_it(tmp_path, webhook, monkeypatch, name):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = Tracker(tmp_path).client
    client.create_registered_model(name)
    for _ in range(2):
        client.create_model_version(name, source=str(tmp_path))
    client.set_registered_model_alias(name, "champion", "1")
    notice_champion(tmp_path, name)
    notice_champion(tmp_path, name)
    client.set_registered_model_alias(name, "champion", "2")
    notice_champion(tmp_path, name)
    assert webhook.events == ["promoted", "promoted"]
    assert f"version 2 of '{name}' is champion; it was 1" in json.loads(webhook.requests[1][1])["text"]


def test_no_new_champion_for_days_is_an_alert_once_a_day(tmp_path, webhook):
    deployed = deploy(tmp_path, load_config("micro", ["operations.champion_days=3"]))
    assert absent_champion(tmp_path, deployed, deployed.time + 2 * DAY) is None
    assert "no new champion for 4 days" in absent_champion(tmp_path, deployed, deployed.time + 4 * DAY)
    stored, noticed = absence._noticed(tmp_path)
    for others in ({"champion": "1", "since": deployed.time + 3 * DAY}, {"champions": {}}):  # as of before
        absence._note(tmp_path, stored, {**noticed, **others})
        assert (absent_champion(tmp_path, deployed, deployed.time + 4 * DAY) is None) == ("since" in others)
        stored, _ = absence._noticed(tmp_path)
    champions = {REGISTERED_NAME: {"version": "1", "since": deployed.time + 3 * DAY}}
    absence._note(tmp_path, stored, {**noticed, "champions": champions})
    assert absent_champion(tmp_path, deployed, deployed.time + 4 * DAY) is None
    for hours in (0, 1, 23, 25):
        alert_once_a_day(tmp_path, "no_new_champion", "none", deployed.time + hours * 3600)
    assert webhook.events == ["no_new_champion"] * 2
