"""How things stand under a HOME: the plan of its last run's config. The form of `status --json` is here."""

import json
from pathlib import Path
from typing import Any

from pipelines.config import load_config, saved_config
from pipelines.execution.progress import Progress
from pipelines.pipeline import Pipeline
from pipelines.planning.planned import Planned


def status_of(home: Path, progress: Progress | None = None) -> list[Planned]:
    """Every stage's state under the config of the last run (the demo preset if there was none).

    progress: where a config or a receipt that does not count is named, one line each; standard error by
    default.
    """
    progress = progress or Progress()
    config = saved_config(home, progress.say) or load_config()
    return Pipeline(config, home, progress=progress).plan()


def status_json(plan: list[Planned]) -> str:
    """The plan as a JSON list, a row for each stage."""
    return json.dumps([status_row(planned) for planned in plan], indent=1, ensure_ascii=False)


def status_row(planned: Planned) -> dict[str, Any]:
    """One stage as JSON. Counts, seconds and memory are of the output itself, or null where there is none."""
    receipt = planned.receipt if planned.fresh else None
    return {
        "stage": planned.stage.name,
        "snapshot": planned.snapshot,
        "state": planned.state.value,
        "why": planned.why,
        "fingerprint": planned.fingerprint,
        "path": str(planned.path) if planned.path else None,
        "counts": receipt.counts.as_dict() if receipt else {"in": 0, "kept": 0, "rejected": 0, "errored": 0},
        "seconds": receipt.seconds if receipt else None,
        "peak_rss_mb": receipt.peak_rss_mb if receipt else None,
        "reasons": receipt.reasons if receipt else {},
        "digest": receipt.digest if receipt else None,
        "finished_at": receipt.finished_at if receipt else None,
    }
