"""Fields that a config got later than others."""

from typing import Any

from pydantic import Field


def added_field(default: Any, **settings: Any) -> Any:
    """A pydantic Field that is left out of what is dumped while it has its default.

    So a config that does not use it has the dump, and with it the fingerprint and the card, that it had
    before there was such a field.
    """
    return Field(default, exclude_if=lambda value: value == default, **settings)
