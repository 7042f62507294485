"""A small model for every test of the server."""

from pathlib import Path

import pytest

from tests.small_model import write_small_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("made") / "model")
