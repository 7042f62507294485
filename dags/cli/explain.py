"""What `straightshot explain` prints: an alt text's way through the rules of the filter."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.corpus.readers import valid_text
from components.errors import one_line
from components.filtering.alt_text import AltTextRules, Explanation, RuleResult, explain_alt_text
from pipelines.config import saved_config
from pipelines.errors import ConfigError
from pipelines.store.home import home_path

COLUMN = "alt_text"  # of an object in a file


def explain_texts(
    texts: Sequence[str], file: Path | None, home: Path | None, *, as_json: bool
) -> Iterator[str]:
    """The lines to print. Raises ConfigError for no text at all and for a line that is none."""
    if not texts and file is None:
        raise ConfigError('explain: no text; give "TEXT"... or --file F.jsonl')
    config = saved_config(home_path(home))
    rules = config.filter.alt_text if config else AltTextRules()
    for text in (*texts, *(_lines(file) if file is not None else ())):
        explanation = explain_alt_text(text, rules)
        yield json.dumps(_object(explanation), ensure_ascii=False) if as_json else _shown(explanation)


def _lines(file: Path) -> Iterator[str | None]:
    """The texts of a file, one a line."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # of which a text may hold others: U+2028
    except OSError as error:
        raise ConfigError(f"--file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--file {file}: {one_line(error)}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"--file {file}, line {number}: not JSON ({one_line(error)})") from error
        if isinstance(value, dict) and COLUMN in value:
            value = value[COLUMN]
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"--file {file}, line {number}: no text, no null, and no object with {COLUMN}")
        yield valid_text(value)  # JSON may hold half of a surrogate pair


def _object(explanation: Explanation) -> dict[str, Any]:
    rejection = explanation.rejection
    return {
        "text": explanation.text,
        "cleaned": explanation.cleaned,
        "cut": list(explanation.cut),
        "verdict": explanation.verdict,
        "reason": rejection.reason.value if rejection else None,
        "detail": rejection.detail if rejection else None,
        "rules": [asdict(rule) for rule in explanation.rules],
    }


def _shown(explanation: Explanation) -> str:
    """Several lines: the text, the verdict, and every rule."""
    rejection = explanation.rejection
    verdict: str = explanation.verdict
    if rejection:
        verdict += f", {rejection.reason.value}: {rejection.detail}"
    lines = [json.dumps(explanation.text, ensure_ascii=False)]
    if explanation.cleaned != explanation.text:
        lines.append(f"  cleaned: {json.dumps(explanation.cleaned, ensure_ascii=False)}")
    if explanation.cut:
        lines.append(
            f"  cut off: {', '.join(json.dumps(piece, ensure_ascii=False) for piece in explanation.cut)}"
        )
    return "\n".join([*lines, f"  {verdict}", *map(_rule_line, explanation.rules)])


def _rule_line(rule: RuleResult) -> str:
    sign = "✓" if rule.detail is None else "✗"
    measured = "" if rule.value is None else f" {rule.value:.4g} (threshold {rule.threshold:g})"
    return f"    {sign} {rule.rule}{measured}" + (f": {rule.detail}" if rule.detail is not None else "")
