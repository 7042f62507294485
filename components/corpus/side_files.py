"""What stands beside an image: the JSON of its own, or its row of a table, as fields by name.

A licence and a source are called otherwise by every crawl (`LICENSE` in LAION, `license_url` in Openverse,
`LicenseShortName` in Wikimedia Commons): `provenance` knows the usual names, for every kind of corpus.
"""

import json
from collections.abc import Mapping
from typing import Any

# By column of PROVENANCE, the names of fields that mean it, the best first: without case and punctuation.
NAMES: Mapping[str, tuple[str, ...]] = {
    "license": (
        *("license", "licence", "licensename", "licencename", "licenseshortname", "usagelicense"),
        *("licenseurl", "licenceurl", "licenseuri", "rights", "usageterms"),
    ),
    "source": ("source", "sourcename", "provider", "sourceurl", "sourceuri"),
}
KNOWN = frozenset(name for names in NAMES.values() for name in names)
NOT_STATED = ("", "?")  # LAION writes a question mark
MOST_CHARACTERS = 300  # of a licence or a source: it is a name or an address, no contract
TEXTS = ("caption", "alt_text")  # of a JSON; the first that is there is the text
DAMAGED_JSON = ".json beside an image that is no JSON object"


def fields_of(data: bytes) -> dict[str, Any] | None:
    """The fields of a JSON object; None where `data` is none."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def text_of(fields: Mapping[str, Any]) -> str | None:
    """The text of a JSON's fields."""
    text = next((fields[name] for name in TEXTS if name in fields), None)
    return text if isinstance(text, str) else None


def provenance(fields: Mapping[str, Any]) -> dict[str, str]:
    """Those columns of PROVENANCE that the fields state."""
    stated: dict[str, str] = {}
    for name, value in fields.items():
        if is_provenance(name) and (text := _stated(value)) is not None:
            stated.setdefault(_letters(name), text)
    named = {column: [stated[name] for name in names if name in stated] for column, names in NAMES.items()}
    return {column: texts[0] for column, texts in named.items() if texts}


def is_provenance(name: object) -> bool:
    """Whether a field of this name states a column of PROVENANCE."""
    return isinstance(name, str) and _letters(name) in KNOWN


def _stated(value: object) -> str | None:
    """A field's value in one line, if it says something."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        return None
    text = " ".join(str(value)[: 2 * MOST_CHARACTERS].split())[:MOST_CHARACTERS]
    return None if text in NOT_STATED else text


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name[:40])).casefold()
