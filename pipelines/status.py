"""How things stand under a HOME: the plan of its last run's config. The form of `status --json` is here."""

import json
from pathlib import Path
from typing import Any

from pipelines.config import load_config, saved_config
from pipelines.pipeline import Pipeline, Planned


def status_of(home: Path) -> list[Planned]:
    """Every stage's state under the config of the last run (the demo preset if there was none)."""
    return Pipeline(saved_config(home) or load_config(), home).plan()


def status_json(planned: list[Planned]) -> str:
    return json.dumps([status_row(one) for one in planned], indent=1, ensure_ascii=False)


def status_row(one: Planned) -> dict[str, Any]:
    """One stage as JSON. Counts, seconds and memory are of the output itself, or null where there is none."""
    receipt = one.receipt if one.fresh else None
    return {
        "stage": one.stage.name,
        "snapshot": one.snapshot,
        "state": one.state.value,
        "why": one.why,
        "fingerprint": one.fingerprint,
        "path": str(one.path) if one.path else None,
        "counts": receipt.counts.as_dict() if receipt else {"in": 0, "kept": 0, "rejected": 0, "errored": 0},
        "seconds": receipt.seconds if receipt else None,
        "peak_rss_mb": receipt.peak_rss_mb if receipt else None,
        "reasons": receipt.reasons if receipt else {},
        "digest": receipt.digest if receipt else None,
        "finished_at": receipt.finished_at if receipt else None,
    }
