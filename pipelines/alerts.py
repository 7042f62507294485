"""Alerts: what a team wants to hear without looking, sent to a webhook.

The webhook's address and the secret that signs are environment variables, never in a file:
STRAIGHTSHOT_WEBHOOK_URL and STRAIGHTSHOT_WEBHOOK_SECRET. Without an address nothing is sent: what an alert
says is in the error line or in Dagster's history, too. Each is JSON by POST, with two headers as GitHub and
Stripe have them:

    Straightshot-Timestamp: seconds since the epoch
    Straightshot-Signature: sha256=HEX, the HMAC-SHA256 of b"{timestamp}." + body under the secret

A receiver compares the signature in constant time, refuses old timestamps, and drops an `id` that it has
seen: an alert is delivered at least once. It lies in HOME/alerts until the webhook has answered 2xx; whoever
sends the next one, and the daemon every minute, tries again. An alert never fails the run it speaks of.
"""

import hashlib
import hmac
import json
import os
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.errors import GateRefused, describe
from pipelines.store.mirror import store_at
from pipelines.store.provenance import now

URL_VARIABLE, SECRET_VARIABLE = "STRAIGHTSHOT_WEBHOOK_URL", "STRAIGHTSHOT_WEBHOOK_SECRET"
FOLDER = "alerts"
TIMEOUT_SECONDS = 10.0
EVENTS = {
    "run_failed": "a stage failed, or the process of a run was killed",
    "gate_refused": "the gate refused to promote a model",
    "promoted": "another model is champion",
    "snapshot_refused": "the sensor will not make a snapshot, or gave it up",
    "snapshot_left_out": "the models were trained without a registered snapshot",
    "no_new_champion": "no model was promoted for operations.champion_days",
    "sensor_silent": "the sensor for new snapshots has not looked for operations.silent_minutes",
}


def alert(home: Path, event: str, text: str, **details: str) -> None:
    """Send one line about an event of EVENTS; kept under HOME until the webhook has it. Never raises."""
    assert event in EVENTS, event
    if not os.environ.get(URL_VARIABLE):
        return
    name = uuid.uuid4().hex
    body = {"id": name, "event": event, "text": text, "at": now(), "home": str(home), **details}
    key = f"{time.time_ns()}-{name}.json"
    with suppress(OSError):  # a full disk: the run's own error says so
        store_at(home / FOLDER).put(key, json.dumps(body).encode(), if_match=None)
    deliver(home)


@contextmanager
def alerting(home: Path, what: str) -> Iterator[None]:
    """Within it, an error is also an alert: a gate's refusal, or a failure of `what`."""
    try:
        yield
    except GateRefused as refused:
        alert(home, "gate_refused", describe(refused))
        raise
    except Exception as error:  # raised again; an interrupt is no failure
        alert(home, "run_failed", f"{what}: {describe(error)}")
        raise


def deliver(home: Path) -> int:
    """Send what waits under HOME, oldest first, until one does not get through; returns how many wait on."""
    url = os.environ.get(URL_VARIABLE)
    store = store_at(home / FOLDER)
    waiting = store.keys("") if url else []
    for sent, key in enumerate(waiting):
        with suppress(OSError):
            stored = store.read(key)
            if stored is None or _post(str(url), stored.content):
                if stored is not None:
                    store.delete(key, if_match=stored.tag)
                continue
        return len(waiting) - sent
    return 0


def signature(body: bytes, timestamp: str, secret: str) -> str:
    """The value of the header Straightshot-Signature."""
    return f"sha256={hmac.new(secret.encode(), timestamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"


def _post(url: str, body: bytes) -> bool:
    """Whether the webhook took it."""
    timestamp = str(int(time.time()))
    headers = {"Content-Type": "application/json", "Straightshot-Timestamp": timestamp}
    if secret := os.environ.get(SECRET_VARIABLE):
        headers["Straightshot-Signature"] = signature(body, timestamp, secret)
    if not url.startswith(("http://", "https://")):
        return False
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(urllib.request.Request(url, body, headers), timeout=TIMEOUT_SECONDS):
            return True
    except (OSError, ValueError):  # refused, timed out, not 2xx, not a URL
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET without its body, and count as delivered."""

    def redirect_request(self, *args: Any, **settings: Any) -> None:
        return None
