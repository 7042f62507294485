"""What did not happen: another champion, in days. What was noticed last is in HOME/noticed.json."""

import json
import time
from pathlib import Path
from typing import Any

from pipelines.alerts import alert
from pipelines.deployment import Deployment
from pipelines.errors import StraightshotError
from pipelines.store.mirror import store_at
from pipelines.store.store import Stored

KEY = "noticed.json"
DAY = 86400.0


def notice_champion(home: Path, now: float | None = None) -> None:
    """Alert when another version is champion than at the last look, whoever promoted it."""
    from pipelines.registry.model_registry import champion_of

    try:
        champion = champion_of(home)
    except (StraightshotError, OSError):  # no registry to look at; the run that needs it says so
        return
    stored, noticed = _noticed(home)
    if champion != noticed.get("champion"):
        before = noticed.get("champion")
        if champion is not None:
            alert(home, "promoted", f"version {champion} is champion; it was {before or 'none'}")
        _note(home, stored, {**noticed, "champion": champion, "since": now or time.time()})


def absent_champion(home: Path, deployed: Deployment, now: float) -> str | None:
    """A line when no other version became champion for operations.champion_days of the deployed config."""
    days = deployed.config.operations.champion_days
    since = max(_noticed(home)[1].get("since", 0.0), deployed.time)
    if days is None or now - since < days * DAY:
        return None
    return f"no new champion for {(now - since) / DAY:.0f} days (operations.champion_days={days:g})"


def alert_once_a_day(home: Path, event: str, line: str, now: float) -> None:
    """Send an alert about something that lasts, unless one was sent within a day."""
    stored, noticed = _noticed(home)
    if now - noticed.get(event, 0.0) >= DAY:
        alert(home, event, line)
        _note(home, stored, {**noticed, event: now})


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
