"""What is hidden of a text, and what is left."""

import pytest

from components.errors import InputError, one_line
from components.redaction import redacted
from pipelines.errors import ConfigError, describe, serialize_error, traceback_of

SECRET = "pl4nted"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"http://user:{SECRET}@host:5000/x", "http://***@host:5000/x"),
        (f"https://{SECRET}@host", "https://***@host"),
        (f"postgresql+psycopg://u:{SECRET}@db/mlflow", "postgresql+psycopg://***@db/mlflow"),
        (f"postgresql://u:a/b?{SECRET}@db/mlflow", "postgresql://***@db/mlflow"),  # nobody encoded it
        (f"at 'http://u:{SECRET}@h' and http://v:{SECRET}@k", "at 'http://***@h' and http://***@k"),
        (f"http://h/x?a=1&access_token={SECRET}&b=2", "http://h/x?a=1&access_token=***&b=2"),
        (f"s3://b/k?X-Amz-Signature={SECRET}", "s3://b/k?X-Amz-Signature=***"),
        (f"host=db password={SECRET} port=1", "host=db password=*** port=1"),
        (f"{{'Authorization': 'Basic {SECRET}'}}", "{'Authorization': 'Basic ***'}"),
    ],
)
def test_a_secret_is_hidden_and_the_rest_is_left(text, shown):
    assert redacted(text) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/a@b/mlflow.db",
        "models:/straightshot@champion",
        "http://127.0.0.1:5000/?next=1#/experiments/1",
        "http://host:80/mail/a@b",
        "mail a@b about http://host:80/x",
        "train.text.tokens=3 is too few",
    ],
)
def test_a_text_without_a_secret_is_left_as_it_is(text):
    assert redacted(text) == text


def test_every_error_of_this_project_hides_secrets_and_cutting_one_leaves_no_half_of_it():
    address = f"http://user:{SECRET}@host"
    for error in (ConfigError(f"no {address}"), InputError(f"no {address}")):
        assert str(error) == "no http://***@host"
    assert one_line(ValueError(address), limit=len("http://user:pl4n")) == "http://***@host"
    assert SECRET not in describe(ValueError(address))
    assert SECRET not in str(serialize_error(ValueError(address)))


def test_a_traceback_hides_the_secrets_of_the_causes():
    try:
        try:
            raise OSError(f"http://user:{SECRET}@host refused")
        except OSError as cause:
            raise ConfigError("it does not answer") from cause
    except ConfigError as error:
        text = traceback_of(error)
    assert "http://***@host refused" in text and SECRET not in text
