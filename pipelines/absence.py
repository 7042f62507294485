"""What did not happen: another champion, in days. What was noticed last is in HOME/noticed.json."""

import json
import time
from pathlib import Path
from typing import Any

from pipelines.alerts import alert
from pipelines.deployment import Deployment
from pipelines.errors import StraightshotError
from pipelines.registry.model_registry import REGISTERED_NAME, champion_of
from pipelines.store.mirror import store_at
from pipelines.store.store import Stored

KEY = "noticed.json"
DAY = 86400.0


def notice_champion(home: Path, name: str, now: float | None = None) -> None:
    """Alert when another version of that name is champion than at the last look, whoever promoted it."""
    try:
        champion = champion_of(home, name=name)
    except (StraightshotError, OSError):  # no registry to look at; the run that needs it says so
        return
    stored, noticed = _noticed(home)
    before = _champion(noticed, name)
    if champion != before.get("version"):
        if champion is not None:
            was = before.get("version") or "none"
            alert(home, "promoted", f"version {champion} of '{name}' is champion; it was {was}")
        known = {**noticed.get("champions", {}), name: {"version": champion, "since": now or time.time()}}
        _note(home, stored, {**noticed, "champions": known})


def absent_champion(home: Path, deployed: Deployment, now: float) -> str | None:
    """A line when no other version became champion for operations.champion_days of the deployed config."""
    days = deployed.config.operations.champion_days
    champion = _champion(_noticed(home)[1], deployed.config.promote.registered_name)
    since = max(champion.get("since", 0.0), deployed.time)
    if days is None or now - since < days * DAY:
        return None
    return f"no new champion for {(now - since) / DAY:.0f} days (operations.champion_days={days:g})"


def alert_once_a_day(home: Path, event: str, line: str, now: float) -> None:
    """Send an alert about something that lasts, unless one was sent within a day."""
    stored, noticed = _noticed(home)
    if now - noticed.get(event, 0.0) >= DAY:
        alert(home, event, line)
        _note(home, stored, {**noticed, event: now})


def _champion(noticed: dict[str, Any], name: str) -> dict[str, Any]:
    """What was noticed of a name's champion: its version, and since when."""
    known = noticed.get("champions", {}).get(name)
    if known is None and name == REGISTERED_NAME:  # as it was noted when only this one was looked at
        known = {"version": noticed.get("champion"), "since": noticed.get("since", 0.0)}
    return known or {}


def _noticed(home: Path) -> tuple[Stored | None, dict[str, Any]]:
    stored = store_at(home).read(KEY)
    try:
        noticed = json.loads(stored.content) if stored else {}
    except ValueError:
        noticed = {}
    return stored, noticed if isinstance(noticed, dict) else {}


def _note(home: Path, stored: Stored | None, noticed: dict[str, Any]) -> None:
    """Remember; of two processes that noticed the same, one does, and both have sent it: at least once."""
    store_at(home).put(KEY, json.dumps(noticed).encode(), if_match=stored.tag if stored else None)
