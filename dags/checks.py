"""The gates, as inline blocking checks of the assets: each is reported together with the output it judges.

(A separate blocking check would, on re-execution, judge the old output again.)
"""

import dagster as dg

from components.redaction import redacted
from pipelines.store.receipts import Receipt

COUNTS = "every_record_ended_once"
GATE = "gate"
GATED = "promote"  # the stage whose gate may refuse


def check_specs(stage: str) -> list[dg.AssetCheckSpec]:
    """The checks an asset promises to report."""
    counts = "in = kept + rejected + errored, with a reason for every reject, by the receipt"
    specs = [dg.AssetCheckSpec(COUNTS, asset=stage, blocking=True, description=counts)]
    if stage == GATED:
        gate = "the student against absolute thresholds and against the champion"
        specs.append(dg.AssetCheckSpec(GATE, asset=stage, blocking=True, description=gate))
    return specs


def check_results(receipt: Receipt) -> list[dg.AssetCheckResult]:
    """The result of each of them, from the receipt of a finished stage."""
    counts = receipt.counts
    ended = counts.kept + counts.rejected + counts.errored
    results = [
        dg.AssetCheckResult(
            check_name=COUNTS,
            passed=counts.in_ == ended and sum(receipt.reasons.values()) == counts.rejected + counts.errored,
            metadata={**counts.as_dict(), **{f"reason: {k}": v for k, v in receipt.reasons.items()}},
        )
    ]
    if receipt.stage == GATED:  # a gate that refuses leaves no receipt
        results.append(dg.AssetCheckResult(check_name=GATE, passed=True, metadata=_info(receipt)))
    return results


def refusal(text: str) -> dg.AssetCheckResult:
    """The gate's refusal, recorded before the run fails of it."""
    return dg.AssetCheckResult(check_name=GATE, passed=False, description=text)


def _info(receipt: Receipt) -> dict[str, str]:
    return {name: redacted(str(value)) for name, value in receipt.info.items()}
