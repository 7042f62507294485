"""The gates, as inline blocking checks of the assets: they are looked at with the output they judge.

(A separate blocking check would, on re-execution, judge the old output again.)
"""

import dagster as dg

from pipelines.receipts import Receipt

COUNTS = "every_record_ended_once"
PROMOTED = "gate"


def check_specs(stage: str) -> list[dg.AssetCheckSpec]:
    """The checks an asset promises to report."""
    specs = [
        dg.AssetCheckSpec(
            COUNTS, asset=stage, blocking=True, description="in = kept + rejected + errored, by the receipt"
        )
    ]
    return specs


def check_results(receipt: Receipt) -> list[dg.AssetCheckResult]:
    """What the receipt says to each of them."""
    counts = receipt.counts
    ended = counts.kept + counts.rejected + counts.errored
    return [
        dg.AssetCheckResult(
            check_name=COUNTS,
            passed=counts.in_ == ended and sum(receipt.reasons.values()) == counts.rejected + counts.errored,
            metadata={**counts.as_dict(), **{f"reason: {k}": v for k, v in receipt.reasons.items()}},
        )
    ]
