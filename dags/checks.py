"""The gates, as inline blocking checks of the assets: they are looked at with the output they judge.

(A separate blocking check would, on re-execution, judge the old output again.) Reported by assets.py.
"""

import dagster as dg

from pipelines.store.receipts import Receipt

COUNTS = "every_record_ended_once"
GATE = "gate"
GATED = "promote"  # the stage whose gate may refuse


def check_specs(stage: str) -> list[dg.AssetCheckSpec]:
    """The checks an asset promises to report."""
    about = "in = kept + rejected + errored, with a reason for every reject, by the receipt"
    specs = [dg.AssetCheckSpec(COUNTS, asset=stage, blocking=True, description=about)]
    if stage == GATED:
        about = "the student against absolute floors and against the champion"
        specs.append(dg.AssetCheckSpec(GATE, asset=stage, blocking=True, description=about))
    return specs


def check_results(receipt: Receipt) -> list[dg.AssetCheckResult]:
    """What the receipt of a finished stage says to each of them."""
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
        results.append(dg.AssetCheckResult(check_name=GATE, passed=True, metadata=_words(receipt)))
    return results


def refusal(text: str) -> dg.AssetCheckResult:
    """The gate's no, on record before the run fails of it."""
    return dg.AssetCheckResult(check_name=GATE, passed=False, description=text)


def _words(receipt: Receipt) -> dict[str, str]:
    return {name: str(value) for name, value in receipt.info.items()}
