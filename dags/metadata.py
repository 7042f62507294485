"""What the page shows of a materialised asset, the most telling first."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from components.redaction import redacted
from dags.pages.addresses import REPORT_PATH, mlflow_link
from pipelines.pipeline import Outcome
from pipelines.store.receipts import Receipt

REPORTED = ("evaluate", "promote")  # stages after which the report has something new to show


def metadata_of(outcome: Outcome) -> dict[str, Any]:
    """A line about what was done, links to MLflow and the report, then the receipt."""
    receipt = outcome.receipt
    return {
        "summary": _summary(outcome),
        **_links(receipt),
        "ran": outcome.ran,
        "path": dg.MetadataValue.path(str(outcome.path)),
        "snapshot": receipt.snapshot,
        "seconds": receipt.seconds,
        "peak_rss_mb": receipt.peak_rss_mb,
        "info": dg.MetadataValue.json(_shown(receipt.info)),
        **receipt.counts.as_dict(),
    }


def _summary(outcome: Outcome) -> str:
    receipt = outcome.receipt
    if not outcome.ran:
        made = receipt.finished_at[:16].replace("T", " ")
        return f"nothing to do: this output was complete already, made {made} UTC"
    return f"made in {receipt.seconds:,.1f} s, {receipt.counts.kept:,} of {receipt.counts.in_:,} records kept"


def _links(receipt: Receipt) -> Mapping[str, dg.UrlMetadataValue]:
    """To the stage's MLflow run or registered version, and to the report."""
    info, links = receipt.info, {}
    if run := info.get("mlflow_run"):
        links["mlflow"] = dg.MetadataValue.url(mlflow_link(f"runs/{run}"))
    if version := info.get("version"):
        name = info.get("registered_name")
        links["mlflow"] = dg.MetadataValue.url(mlflow_link(f"models/{name}/versions/{version}"))
    if receipt.stage in REPORTED:
        links["report"] = dg.MetadataValue.url(REPORT_PATH)
    return links


def _shown(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a receipt says for the reader; one of an earlier version may hold the registry's password."""
    return {name: redacted(value) if isinstance(value, str) else value for name, value in info.items()}
