"""Errors on one line, and the one type that is the user's to set right."""

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from components.errors import InputError, one_line


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("one\n  two\t three "), "one two three"),
        (ValueError(" \n "), "ValueError"),
        (KeyError("name"), "'name'"),
        ("plain  text", "plain text"),
        ("", ""),
    ],
)
def test_an_error_is_one_line(error, text):
    assert one_line(error) == text


def test_a_limit_counts_characters_of_the_line():
    assert one_line(ValueError("a \n b" + "c" * 100), limit=5) == "a bcc"


def test_a_validator_may_raise_it():
    class Config(BaseModel):
        share: float

        @field_validator("share")
        @classmethod
        def _positive(cls, share: float) -> float:
            raise InputError("share must be positive")

    with pytest.raises(ValidationError, match="share must be positive"):
        Config(share=-1)
