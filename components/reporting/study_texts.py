"""The numbers of a study as text, for the page and the command."""

from components.studies.table import Estimate, SignResult

WORDS = {"agrees": "agrees", "disagrees": "DISAGREES", "undecided": "undecided"}


def estimate_text(cell: Estimate) -> str:
    """0.312 (0.287–0.337); of a single seed, the number alone."""
    interval = "" if cell.low is None or cell.high is None else f" ({cell.low:.3f}–{cell.high:.3f})"
    return f"{cell.mean:.3f}{interval}"


def sign_text(sign: SignResult) -> str:
    """agrees: on long prompts, a is better than b by 0.100 (0.050–0.150) (source)."""
    return (
        f"{WORDS[sign.verdict]}: by {sign.measure}, '{sign.better}' better than '{sign.worse}':"
        f" {estimate_text(sign.difference)} ({sign.source})"
    )
